# Links into the repository do not work in the package: the name of the file replaces them.
s/\[([^]]*)\]\(([a-z0-9-]+\.md)(#[a-z0-9-]*)?\)/\1 (docs\/\2 of h3cast)/g
s/\[([^]]*)\]\(\.\.\/([^)]*)\)/\1 (\2 of h3cast)/g
