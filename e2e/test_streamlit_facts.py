"""Everything of Streamlit that `server_state.py` leans on, looked up on the real package, and taken away in turn."""

from __future__ import annotations

import re
import unittest

from streamlit_client import ROOT, RealServerCase, Tab, app
from streamlit_facts import FACTS


class Facts(RealServerCase):
    def test_the_list_is_complete(self) -> None:
        ours = (ROOT / "server_state.py").read_text().split("# --- Streamlit: every reach into it ---")[1]
        private = set(re.findall(r"\b(?:ctx|app|runner|runtime|session)\.(_[a-z]\w+)", ours)) - {"_server_state"}
        self.assertEqual(private - FACTS.keys(), set())

    def test_streamlit_has_it_all(self) -> None:
        facts = (ROOT / "e2e" / "streamlit_facts.py").read_text()
        (tab,) = self.tabs(self.serve(app("facts"), {"streamlit_facts.py": facts}), 1)
        tab.click("again")
        tab.wait_for_text("all looked up")
        self.assertNotIn("missing", tab.text())

    def test_S4_what_streamlit_lacks_costs_the_reruns_only(self) -> None:
        """Each name that is looked up is misspelt in a copy of the module, so that it is not there for it."""
        source = (ROOT / "server_state.py").read_text()
        listed = source[source.index("_NEEDS_OF_SESSION = ") : source.index("_SCRIPTRUNNER = ")]
        names = " ".join(re.findall(r'"""(.*?)"""', listed, re.DOTALL)).split()
        self.assertGreater(len(names), 12)
        files = {}
        for number, name in enumerate(names):
            copy = source.replace(listed, re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", f"{name}_gone", listed))
            files[f"copy_{number}.py"] = copy.replace("_server_state", f"_server_state_{number}")
        server = self.serve(app("lacking"), files)
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
