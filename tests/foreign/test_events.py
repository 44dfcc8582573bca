"""EventSource clients of Python settle when a feed has ended: 204 keeps them from reconnecting."""

import pytest
import requests
from requests_sse import EventSource, InvalidStatusCodeError
from server import Server

SOURCES = ["demo", "ended=exec:echo おわり", "empty=exec:true", "failed=exec:echo ü; exit 3"]


@pytest.fixture(scope="module")
def feeds():
    with Server(*SOURCES) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "chunks"),
    [
        ("/stream", [f"data chunk #{seq}" for seq in range(10)]),
        ("/stream/ended?from=start", ["おわり"]),
        ("/stream/empty", []),
        ("/stream/failed?from=start", ["ü"]),
    ],
)
def test_requests_sse_settles(feeds, path, chunks):
    seen, ends = [], 0
    with pytest.raises(InvalidStatusCodeError) as settled:
        with EventSource(feeds.plain + path, timeout=20, max_connect_retry=0) as source:
            for event in source:
                if event.type == "end":
                    ends += 1
                    assert event.last_event_id.endswith("-end")
                    assert ends < 3, "it reconnects for ever"
                else:
                    seen.append(event.data)
    assert settled.value.status_code == requests.codes.no_content
    assert (seen, ends) == (chunks, 1)
