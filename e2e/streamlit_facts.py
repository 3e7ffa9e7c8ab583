"""What `server_state.py` reaches for in Streamlit: an expression for each, which is to be true in a run of an app."""

from __future__ import annotations

import sys
import threading
from typing import Any

from streamlit import config
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.runtime import Runtime, scriptrunner
from streamlit.runtime.scriptrunner.script_runner import ScriptRunnerEvent

FACTS = {
    "get_script_run_ctx": "scripts.get_script_run_ctx(suppress_warning=True) is ctx",
    "Runtime": "isinstance(runtime, Runtime)",
    "exists": "Runtime.exists()",
    "instance": "Runtime.instance() is runtime",
    "_session_mgr": "runtime._session_mgr",
    "get_session_info": "runtime._session_mgr.get_session_info(ctx.session_id)",
    "session": "runtime._session_mgr.get_session_info(ctx.session_id).session is session",
    "session_id": "ctx.session_id == session.id",
    "id": "runtime.is_active_session(session.id)",
    "is_active_session": "runtime.is_active_session(ctx.session_id)",
    "_scriptrunner": "session._scriptrunner is runner",
    "_event_loop": "callable(session._event_loop.call_soon_threadsafe) and callable(session._event_loop.call_later)",
    "_client_state": "isinstance(session._client_state, ClientState)",
    "CopyFrom": "callable(session._client_state.CopyFrom)",
    "page_script_hash": "isinstance(session._client_state.page_script_hash, str)",
    "fragment_id": "ClientState().fragment_id == ''",
    "_fragment_storage": "session._fragment_storage",
    "contains": "session._fragment_storage.contains('no such fragment') is False",
    "_browser_queue": "session._browser_queue is not None",
    "_queue": "isinstance(session._browser_queue._queue, list)",
    "request_rerun": "callable(session.request_rerun)",
    "_requests": "runner._requests is ctx.script_requests",
    "script_requests": "ctx.script_requests",
    "_script_thread": "runner._script_thread is threading.current_thread()",
    "on_event": "callable(runner.on_event.connect)",
    "connect": "callable(runner.on_event.connect)",
    "_has_script_started": "ctx._has_script_started is True",
    "fragment_ids_this_run": "not ctx.fragment_ids_this_run",
    "current_fragment_id, or ThreadState": "(ctx.current_fragment_id if old else state.get().fragment_id) is None",
    "get_option": "config.get_option('runner.postScriptGC') in (True, False)",
    "set_option": "config.set_option('runner.postScriptGC', config.get_option('runner.postScriptGC')) is None",
    "events": "{'SCRIPT_STARTED', 'SCRIPT_STOPPED_WITH_SUCCESS', 'SHUTDOWN', 'ENQUEUE_FORWARD_MSG'} <= names",
    "_rerun_data": "ctx.script_requests._rerun_data is not None",
    "widget_states": "ctx.script_requests._rerun_data.widget_states is not None",
    "fragment_id_queue": "list(ctx.script_requests._rerun_data.fragment_id_queue) == []",
    "_state": "{'STOP', 'RERUN', 'CONTINUE'} == {state.name for state in type(ctx.script_requests._state)}",
    "query_string": "ctx.query_string == ''",
    "RerunData": "scripts.RerunData(query_string='', page_script_hash=ctx.page_script_hash, fragment_id=None)",
    "dg_stack": "any(one.name.endswith('dg_stack') and len(variables[one]) == 2 for one in variables)",
    # How Streamlit behaves, as the fake of the unit tests says.
    "a further run of a runner begins with SCRIPT_STARTED, in the same context": "seen.started == [True]",
    "the last run ended as its SHUTDOWN said": "seen.shutdown['client_state'] is not None and seen.accepted",
    "events come from the script's thread": "seen.thread == 'ScriptRunner.scriptThread'",
}


def names_for(ctx: Any, session: Any, seen: Any) -> dict[str, Any]:
    """Give what the expressions speak of; `seen` is what an app noted in its run before."""
    module = sys.modules.get("streamlit.runtime.scriptrunner_utils.script_run_context")  # None in older releases
    return {
        "ctx": ctx,
        "session": session,
        "seen": seen,
        "variables": getattr(seen, "in_container", {}),
        "runtime": Runtime.instance(),
        "runner": session._scriptrunner,
        "old": hasattr(ctx, "current_fragment_id"),
        "state": getattr(module, "ThreadState", None),
        "names": {event.name for event in ScriptRunnerEvent},
        "Runtime": Runtime,
        "ClientState": ClientState,
        "config": config,
        "scripts": scriptrunner,
        "threading": threading,
    }
