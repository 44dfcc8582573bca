# Links within the repository lead nowhere from the package: the name of the file takes their place.
s/\[([^]]*)\]\(([a-z0-9-]+\.md)(#[a-z0-9-]*)?\)/\1 (docs\/\2 of h3cast)/g
s/\[([^]]*)\]\(\.\.\/([^)]*)\)/\1 (\2 of h3cast)/g
