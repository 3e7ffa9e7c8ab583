"""A table for several people: each edits a copy, cells are merged. Streamlit 1.66: `streamlit run shared_table.py`"""

import uuid

import streamlit as st

from server_state import server_state, server_state_lock

COLUMNS = {"what": st.column_config.TextColumn("What"), "amount": st.column_config.NumberColumn("Amount")}
# Rows by their ids. Neither they nor the table are changed in place, so that the copies stay what they were.
table = server_state.setdefault("table", {"1": {"what": "Bread", "amount": 2}, "2": {"what": "Tea", "amount": 1}})


def save() -> None:
    copy, edits, notes = st.session_state.pop("copy"), st.session_state["edits"], st.session_state["notes"]
    ids = list(copy)
    with server_state_lock["table"]:
        table = dict(server_state["table"])
        for number in edits["deleted_rows"]:
            if table.get(ids[number]) == copy[ids[number]]:
                del table[ids[number]]
            elif ids[number] in table:
                notes.append("A row was not deleted, since somebody has changed it meanwhile.")
        for number, cells in edits["edited_rows"].items():
            before = copy[ids[number]]
            now = table.get(ids[number], before)  # a row that was deleted meanwhile comes back
            clash = {name for name in cells if now[name] not in (before[name], cells[name])}
            table[ids[number]] = now | {name: cells[name] for name in cells.keys() - clash}
            notes += [f"Somebody has written {now[name]}, where you wrote {cells[name]}." for name in clash]
        for row in filter(None, edits["added_rows"]):
            table[uuid.uuid4().hex] = dict.fromkeys(COLUMNS) | row
        server_state["table"] = table


st.title("Shopping list", anchor=False)
columns = {name: [row[name] for row in st.session_state.get("copy", table).values()] for name in COLUMNS}
if "copy" not in st.session_state:
    st.dataframe(columns, column_config=COLUMNS)
    st.button("Edit", on_click=st.session_state.update, kwargs={"copy": table, "notes": []})
else:
    # The editor is made of the copy, and stays what it is when others save.
    st.data_editor(columns, key="edits", num_rows="dynamic", on_change="ignore", column_config=COLUMNS)
    st.button("Save", on_click=save, type="primary")
for note in st.session_state.get("notes", []):
    st.warning(note)
