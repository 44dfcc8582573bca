"""Makes vectors.json: tokens of another implementation (PyJWT), and the keys that verify them.

    target/foreign-venv/bin/python tests/auth/vectors.py > tests/auth/vectors.json
"""

import base64
import hashlib
import hmac
import json

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

FAR = 4_102_444_800  # 2100
CLAIMS = {"exp": FAR, "sub": "alice", "read": ["log", "chat.*"], "publish": ["chat.lobby"]}
SECRET = "a secret of more than thirty-two bytes"


def pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def jwk(key, algorithm, kid):
    made = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key()))
    made.pop("key_ops", None)
    return made | {"kid": kid, "alg": algorithm, "use": "sig"}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header, claims, secret):
    """A token that a library would not make."""
    signed = f"{b64(header)}.{b64(claims)}"
    return f"{signed}.{b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


keys = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
other = ec.generate_private_key(ec.SECP256R1())
p384 = ec.generate_private_key(ec.SECP384R1())

good = {name: jwt.encode(CLAIMS, key, name, headers={"kid": name}) for name, key in keys.items()}
good["HS256"] = jwt.encode(CLAIMS, SECRET, "HS256")
good["ES256 without kid"] = jwt.encode(CLAIMS, keys["ES256"], "ES256")
good["exp with a fraction"] = jwt.encode(CLAIMS | {"exp": FAR + 0.5}, SECRET, "HS256")
good["read as one text"] = jwt.encode(CLAIMS | {"read": "log"}, SECRET, "HS256")
good["nbf in the past"] = jwt.encode(CLAIMS | {"nbf": 1}, SECRET, "HS256")
good["other claims"] = jwt.encode(CLAIMS | {"iss": "them", "scope": {"x": [1]}}, SECRET, "HS256")


def hs(**claims):
    return jwt.encode({key: value for key, value in (CLAIMS | claims).items() if value is not None}, SECRET, "HS256")


def raw(**claims):
    """With claims that PyJWT checks itself."""
    return by_hand(b'{"alg":"HS256"}', json.dumps(CLAIMS | claims).encode(), SECRET.encode())


es = keys["ES256"]
NONE = b64(b'{"alg":"none"}')
NONE_IN_CAPITALS = b64(b'{"alg":"nOnE"}')
header, claims, signature = good["ES256"].split(".")
bad = {
    "no algorithm": jwt.encode(CLAIMS, None, "none"),
    "no algorithm, by another spelling": f"{NONE_IN_CAPITALS}.{claims}.",
    "no algorithm, with a signature": f"{NONE}.{claims}.{signature}",
    "the public key of RS256 as the secret of HS256": by_hand(
        b'{"alg":"HS256","kid":"RS256"}', json.dumps(CLAIMS).encode(), pem(keys["RS256"]).encode()
    ),
    "the public key of EdDSA as the secret of HS256": by_hand(
        b'{"alg":"HS256"}', json.dumps(CLAIMS).encode(), pem(keys["EdDSA"]).encode()
    ),
    "another key": jwt.encode(CLAIMS, other, "ES256", headers={"kid": "ES256"}),
    "a kid that is not known": jwt.encode(CLAIMS, es, "ES256", headers={"kid": "unknown"}),
    "the kid of another key": jwt.encode(CLAIMS, es, "ES256", headers={"kid": "RS256"}),
    "a key in its own header": jwt.encode(
        CLAIMS, other, "ES256", headers={"kid": "own", "jwk": jwk(other, "ES256", "own")}
    ),
    "a signature of another message": f"{header}.{b64(json.dumps(CLAIMS | {'read': ['*']}).encode())}.{signature}",
    "no signature": f"{header}.{claims}.",
    "a signature that is cut": f"{header}.{claims}.{signature[:-4]}",
    "four parts": f"{good['ES256']}.x",
    "HS384": jwt.encode(CLAIMS, SECRET + SECRET, "HS384"),
    "RS512 with the key of RS256": jwt.encode(CLAIMS, keys["RS256"], "RS512", headers={"kid": "RS256"}),
    "PS256 with the key of RS256": jwt.encode(CLAIMS, keys["RS256"], "PS256", headers={"kid": "RS256"}),
    "ES384": jwt.encode(CLAIMS, p384, "ES384"),
    "expired": hs(exp=1_000_000_000),
    "no exp": hs(exp=None),
    "exp is text": raw(exp=str(FAR)),
    "exp is null": raw(exp=None),
    "exp is a list": raw(exp=[FAR]),
    "exp is true": raw(exp=True),
    "exp is negative": raw(exp=-1),
    "exp is beyond all numbers": by_hand(
        b'{"alg":"HS256"}', json.dumps(CLAIMS).replace(str(FAR), "1e400").encode(), SECRET.encode()
    ),
    "exp is there twice": by_hand(
        b'{"alg":"HS256"}', (json.dumps(CLAIMS)[:-1] + ', "exp": 1}').encode(), SECRET.encode()
    ),
    "nbf in the future": hs(nbf=FAR - 1),
    "nbf is text": raw(nbf="1"),
    "nbf is a list": raw(nbf=[1]),
    "an audience": hs(aud="somebody"),
    "audiences": hs(aud=["somebody", "else"]),
    "aud is a number": raw(aud=1),
    "read is a number": raw(read=1),
    "read has a number": raw(read=[1]),
    "read has what is no pattern": raw(read=["log", "a/b"]),
    "publish is an object": raw(publish={"log": True}),
    "sub is a number": raw(sub=1),
    "crit": jwt.encode(CLAIMS, SECRET, "HS256", headers={"crit": ["b64"], "b64": True}),
    "claims that are no object": by_hand(b'{"alg":"HS256"}', b"[1]", SECRET.encode()),
    "a header that is no JSON": by_hand(b"HS256", json.dumps(CLAIMS).encode(), SECRET.encode()),
    "standard base64": good["HS256"].replace("-", "+").replace("_", "/") + "=",
    "nothing but dots": "..",
    "no token at all": "hello",
}
audience = {
    "for": {"one": hs(aud="casts"), "one of several": hs(aud=["else", "casts"])},
    "not for": {
        "none": hs(),
        "another": hs(aud="else"),
        "a number": raw(aud=1),
        "null": raw(aud=None),
        "an empty list": hs(aud=[]),
    },
}
print(
    json.dumps(
        {
            "secret": SECRET,
            "pem": {name: pem(key) for name, key in keys.items()},
            "jwks": {
                "keys": [jwk(key, name, name) for name, key in keys.items()]
                + [
                    jwk(small, "RS256", "small"),
                    jwk(p384, "ES384", "p384"),
                    jwk(other, "ES256", "for encryption") | {"use": "enc"},
                    {"kty": "new", "kid": "of a kind to come", "x": 1},
                ]
            },
            "unsupported": {"a small RSA key": pem(small), "P-384": pem(p384)},
            "good": good,
            "bad": bad,
            "audience": audience,
        },
        indent=1,
    )
)
