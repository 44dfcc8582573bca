"""libcurl over BoringSSL: HTTP/3 with another TLS stack, greeting the server as Chrome does."""

from curl_cffi import CurlHttpVersion, requests


def test_stream(server, demo):
    response = requests.get(
        f"{server.base}/stream",
        http_version=CurlHttpVersion.V3ONLY,
        impersonate="chrome",
        verify=server.cacert,
        timeout=20,
    )
    assert response.status_code == 200
    assert response.http_version == CurlHttpVersion.V3
    assert response.content == b"".join(demo)
