"""A certificate authority for one test."""

import datetime
import ipaddress
import os
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)


class Authority:
    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests/attacks")])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = self._sign(self._name, self._key, (basic, True))

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - DAY)
        builder = builder.not_valid_after(now + DAY)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())

    def certify(self, folder: pathlib.Path) -> None:
        """Writes ca.pem, and cert.pem and key.pem for this machine in place of those that are there."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        leaf = self._sign(x509.Name([]), key, (x509.SubjectAlternativeName(names), True))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pem = serialization.Encoding.PEM
        files = {"ca.pem": self._certificate.public_bytes(pem), "key.pem": private, "cert.pem": leaf.public_bytes(pem)}
        for name, content in files.items():
            # Renamed, as certbot does: nobody reads half of a file.
            new = folder / f".{name}"
            new.write_bytes(content)
            os.replace(new, folder / name)
