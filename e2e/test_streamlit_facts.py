"""Everything of Streamlit that `server_state.py` leans on, looked up on the real package, and taken away in turn."""

from __future__ import annotations

import re
import unittest

from streamlit_client import ROOT, RealServerCase, Tab

# What stands in an app, in a run: an expression for each thing that we reach for.
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
    "request_rerun": "callable(session.request_rerun)",
    "_requests": "runner._requests is ctx.script_requests",
    "script_requests": "ctx.script_requests",
    "_script_thread": "runner._script_thread is threading.current_thread()",
    "on_event": "callable(runner.on_event.connect)",
    "connect": "callable(runner.on_event.connect)",
    "cursors": "isinstance(ctx.cursors, dict)",
    "_has_script_started": "ctx._has_script_started is True",
    "fragment_ids_this_run": "not ctx.fragment_ids_this_run",
    "current_fragment_id, or ThreadState": "(ctx.current_fragment_id if old else state.get().fragment_id) is None",
    "get_option": "config.get_option('runner.postScriptGC') in (True, False)",
    "set_option": "config.set_option('runner.postScriptGC', config.get_option('runner.postScriptGC')) is None",
    "events": "{'SCRIPT_STARTED', 'SCRIPT_STOPPED_WITH_SUCCESS', 'SHUTDOWN', 'ENQUEUE_FORWARD_MSG'} <= names",
    "_rerun_data": "ctx.script_requests._rerun_data is not None",
    "widget_states": "ctx.script_requests._rerun_data.widget_states is not None",
    "_state": "{'STOP', 'RERUN', 'CONTINUE'} == {state.name for state in type(ctx.script_requests._state)}",
    "query_string": "ctx.query_string == ''",
    "RerunData": "scripts.RerunData(query_string='', page_script_hash=ctx.page_script_hash, fragment_id=None)",
    # How Streamlit behaves, as the fake of the unit tests says.
    "a run has cursors of its own": "seen.cursors is not ctx.cursors",
    "the last run ended as its SHUTDOWN said": "seen.shutdown['client_state'] is not None and seen.accepted",
    "events come from the script's thread": "seen.thread == 'ScriptRunner.scriptThread'",
}
APP = """
import sys, threading, types
import streamlit as st
from streamlit import config
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.runtime import Runtime, scriptrunner as scripts
from streamlit.runtime.scriptrunner.script_runner import ScriptRunnerEvent
try:
    from streamlit.runtime.scriptrunner_utils import script_run_context as module
except ImportError:  # older releases
    module = None

ctx = scripts.get_script_run_ctx(suppress_warning=True)
runtime = Runtime.instance()
session = runtime._session_mgr.get_session_info(ctx.session_id).session
runner, old, state = session._scriptrunner, hasattr(ctx, "current_fragment_id"), getattr(module, "ThreadState", None)
names = {event.name for event in ScriptRunnerEvent}

def hear(sender, event, **details):
    if event.name == "SHUTDOWN":
        seen.shutdown, seen.thread = details, threading.current_thread().name

if "seen" not in st.session_state:
    seen = st.session_state.seen = types.SimpleNamespace(cursors=ctx.cursors, hear=hear)
    runner.on_event.connect(hear, weak=False)
else:
    seen = st.session_state.seen
    seen.accepted = session._client_state is seen.shutdown["client_state"]
    for name, expression in FACTS.items():
        try:
            result = bool(eval(expression))
        except Exception as error:
            result = repr(error)
        if result is not True:
            st.markdown(f"missing: {name}: {expression}: {result}")
    st.markdown("all looked up")
st.button("again")
"""


class Facts(RealServerCase):
    def test_the_list_is_complete(self) -> None:
        ours = (ROOT / "server_state.py").read_text().split("# --- Streamlit: every reach into it ---")[1]
        private = set(re.findall(r"\b(?:ctx|app|runner|runtime|session)\.(_[a-z]\w+)", ours)) - {"_server_state"}
        self.assertEqual(private - FACTS.keys(), set())

    def test_streamlit_has_it_all(self) -> None:
        app = APP.replace("FACTS", repr(FACTS))
        (tab,) = self.tabs(self.serve(app), 1)
        tab.click("again")
        tab.wait_for_text("all looked up")
        self.assertNotIn("missing", tab.text())

    def test_S4_what_streamlit_lacks_costs_the_reruns_only(self) -> None:
        """Each name that is looked up is misspelt in a copy of the module, so that it is not there for it."""
        source = (ROOT / "server_state.py").read_text()
        listed = source[source.index("_NEEDS_OF_CONTEXT = (") : source.index("def _logger")]
        names = re.findall(r'"([\w.]+)"', listed)
        self.assertGreater(len(names), 12)
        files = {}
        for number, name in enumerate(names):
            copy = source.replace(f'"{name}",', f'"{name}_gone",')
            files[f"copy_{number}.py"] = copy.replace("_server_state", f"_server_state_{number}")
        app = (
            "import importlib\n"
            "import streamlit as st\n"
            "copy = importlib.import_module('copy_' + st.query_params['copy'])\n"
            "copy.server_state.setdefault('log', [])\n"
            "if st.button('write'):\n"
            "    with copy.server_state_lock['log']:\n"
            "        copy.server_state['log'] = copy.server_state['log'] + [1]\n"
            "        copy.server_state.log.append(2)\n"
            "if st.button('write what a fragment shows'):\n"
            "    copy.server_state.x = copy.server_state.pop('x', 0) + 1\n"
            "st.markdown(f\"log is {copy.server_state['log']}.\")\n"
            "@st.fragment\n"
            "def show():\n"
            "    st.markdown(f\"x is {copy.server_state.get('x')}.\")\n"
            "show()\n"
        )
        server = self.serve(app, files)
        pairs = [(Tab(server, f"copy={number}"), Tab(server, f"copy={number}")) for number in range(len(names))]
        for tab in [tab for pair in pairs for tab in pair]:
            self.addCleanup(tab.close)
        for one, two in pairs:
            one.click("write what a fragment shows")
            one.wait_for_text("x is 1.")
            one.click("write")
            one.wait_for_text("log is [1, 2].")
            two.click("write")
            two.wait_for_text("log is [1, 2, 1, 2].")
        self.runs(*[tab for pair in pairs for tab in pair])
        output = server.output()
        for name in names:
            with self.subTest(name):
                last = name.rpartition(".")[2]
                found = re.findall(rf"lacks something .*(?<!\w){last}_gone", output)
                self.assertEqual(len(found), sum(n.rpartition(".")[2] == last for n in names), output)
        self.assertNotIn("Traceback", output)


if __name__ == "__main__":
    unittest.main()
