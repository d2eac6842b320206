"""Posts an event to a URL. Blocking, to be called in a thread; imported only where a hook has a URL."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from supervisord_async import __version__
from supervisord_async.errors import HookRefusedError

#: A webhook that has not answered within this time has not accepted the event.
ANSWER_SECONDS = 10.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the POST would arrive there as a GET without its body."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def post_json(url: str, body: bytes) -> None:
    """Post ``body`` to ``url``, which accepts it. Blocking. Raises HookRefusedError, ``final`` where another attempt would not help."""
    parts = urlsplit(url)
    headers = {"Content-Type": "application/json", "User-Agent": f"asupd/{__version__}"}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
        url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310  http or https: checked at load
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=ANSWER_SECONDS):
            return
    except urllib.error.HTTPError as error:
        error.close()
        temporary = error.code in (408, 425, 429) or error.code >= 500
        raise HookRefusedError(f"answered {error.code}", final=not temporary) from None
    except (OSError, ValueError) as error:  # URLError among them; ValueError: what answers is not HTTP
        reason = getattr(error, "reason", None) or error
        raise HookRefusedError(str(reason) or type(error).__name__) from None
    except Exception as error:  # http.client's own
        raise HookRefusedError(f"what answers is not HTTP ({type(error).__name__})") from None
