"""What can happen to a file: real processes share one, and it is deleted, replaced, full, locked, or not ours.

Needs no package. As root a few more are run (a small disk, a folder of another user).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import random
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from real_parts import DEADLINE, HERE, ROOT, File, Process, wait_for
from test_server_state_store import GIVE_UP, RETURN, SLACK, Case, InAFile

from server_state_store import LEASE, LockLostError

IN_A_CHILD = """
import os, sys, time
from server_state import server_state, server_state_lock
from server_state_store import connect
connect(sys.argv[1])
server_state["n"] = 0
if os.fork():
    os._exit(0)
connect(sys.argv[1])
for number in range(150):
    if number % 10 == 0:
        print("goes on", flush=True)
    with server_state_lock["n"]:
        server_state["n"] += 1
    time.sleep(0.002)
print(server_state["n"], flush=True)
os._exit(0)
"""


class FileCase(InAFile, Case):
    """Each test has a file of its own."""

    @classmethod
    def setUpClass(cls) -> None:
        pass

    def setUp(self) -> None:
        super().setUp()
        self.store = File()
        self.addCleanup(self.store.close)
        self.path: Path = self.store.path

    def stranger(self) -> Process:
        """Give a process that has not connected."""
        process = Process(None)
        self.addCleanup(process.close)
        return process

    def assert_gives_up(self, process: Process, *args: Any, thread: str = "main") -> str:
        begun = time.monotonic()
        with self.assertRaises(ConnectionError) as raised:
            process.do(*args, thread=thread)
        self.assertLess(time.monotonic() - begun, GIVE_UP + SLACK / 2, args)
        return str(raised.exception)

    def wait_until_it_works(self, process: Process, *args: Any) -> None:
        def works() -> bool:
            try:
                process.do(*args)
            except ConnectionError:
                return False
            return True

        wait_for("writes to work", works)

    def assert_whole(self) -> None:
        with self.store.open() as sql:
            self.assertEqual(sql.execute("PRAGMA integrity_check").fetchall(), [("ok",)])


class Restart(FileCase):
    def test_P10_all_is_there_after_kill_of_all(self) -> None:
        one, two = self.processes(2)
        one.do("update", {"x": 1, "log": ["a"]})
        two.do("append_locked", "log", "b")
        two.do("take", "x")
        two.do("put", "x", "half done")
        for process in (one, two):
            process.kill()
        three = self.process()
        self.assertEqual(three.state(), {"x": 1, "log": ["a", "b"]})
        self.assertTrue(three.do("take_within", LEASE + SLACK, "x"))
        three.do("put", "x", 2)
        three.do("release", "x")
        self.assertEqual(self.wait_until_equal([three]), {"x": 2, "log": ["a", "b"]})

    def test_P10_kill_in_the_middle_of_commits(self) -> None:
        """What a process said is there, and nothing is torn; whatever it was doing when it was killed."""
        chance = random.Random(10)
        watcher = self.process()
        watcher.do("update", {"left": 0, "right": 0, "acknowledged": 0})
        for _ in range(6):
            victim = self.process()
            before = watcher.do("get", "left")
            work = victim.begin("increment_pair_and_say", 10_000, "x" * 300_000)
            wait_for("it to work", lambda n=before: watcher.do("get", "left") > n + 3)  # type: ignore[misc]
            time.sleep(chance.random() / 20)
            victim.kill()
            self.assertRaises(EOFError, work.result, DEADLINE)
            said = max(
                (int(line.split()[1]) for line in victim.log().splitlines() if line.startswith("said ")), default=0
            )
            late = self.process()
            state = late.state()
            self.assertEqual(state["left"], state["right"])
            self.assertIn(state["left"], (said, said + 1), "a commit was lost, or one more was made")
            late.close()
            self.assertTrue(watcher.do("take_within", LEASE + SLACK, "left"))
            watcher.do("release", "left")
        self.assert_whole()

    def test_P10_many_processes_make_the_file_at_once(self) -> None:
        for _ in range(3):
            processes = [self.process() for _ in range(8)]
            work = [process.begin("increment", "n", 5) for process in processes]
            for process in processes:
                assert process.is_connected
                self.assertIsNone(process.is_connected.exception(DEADLINE))
            for future in work:
                future.result(DEADLINE)
            self.assertEqual(self.wait_until_equal(processes)["n"], 40)
            for process in processes:
                process.close()
            for path in self.store.folder.iterdir():
                path.unlink()

    @unittest.skipUnless(hasattr(os, "fork"), "there are no forks")
    def test_P10_a_child_goes_on_when_its_parent_is_gone(self) -> None:
        """SQLite's locks are the process's: a child that inherits an open file would hold none, and not know it."""
        done = subprocess.Popen(
            [sys.executable, "-c", IN_A_CHILD, str(self.path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.stdout
        self.addCleanup(done.stdout.close)
        said = done.stdout.readline()
        done.wait(DEADLINE)
        while said.startswith("goes on"):  # whoever closes the file last removes its log
            with contextlib.closing(sqlite3.connect(self.path, DEADLINE)) as sql:
                sql.execute("SELECT count(*) FROM state").fetchall()
            said = done.stdout.readline()
        self.assertEqual(said + done.stdout.read(), "150\n")
        (data,) = self.store.values("").values()
        self.assertEqual(pickle.loads(data[32:]), 150)
        self.assert_whole()

    def test_P10_a_position_of_before_the_start_is_no_trap(self) -> None:
        """A process that slept while all others died, and the file grew on, hears of all."""
        one, two = self.processes(2)
        one.do("put", "x", 0)
        self.wait_until_equal([one, two])
        two.pause()
        self.addCleanup(two.go_on)
        one.do("put_many", "x", list(range(50)))
        one.kill()
        three = self.process()
        three.do("put_many", "x", list(range(100, 150)))
        two.go_on()
        self.assertEqual(self.assert_equal_within("asleep while others died", RETURN, [two, three]), {"x": 149})


class Damage(FileCase):
    def put_in_place(self, copy: Path) -> None:
        """Move a copy into the file's place, and wait until a server has seen it: any other program is too early."""
        log = Path(f"{self.path}-wal")
        before = log.stat().st_ino if log.exists() else None
        copy.rename(self.path)
        wait_for("its log to be another one", lambda: log.exists() and log.stat().st_ino != before)

    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = self.processes(2)
        self.one.do("update", {"x": 1, "log": ["a"]})
        self.two.do("append_locked", "log", "b")
        self.state = self.wait_until_equal([self.one, self.two])

    def test_P6_deleted_and_put_back(self) -> None:
        for ends in ([""], ["", "-wal", "-shm"]):
            with self.subTest(ends):
                copy = self.store.copy()
                for end in ends:
                    Path(f"{self.path}{end}").unlink()
                for process in (self.one, self.two):
                    self.assertIn(str(self.path), self.assert_gives_up(process, "put", "x", "lost"))
                    self.assert_gives_up(process, "increment", "x", 1)
                    self.assertEqual(process.state(), self.state)
                self.assertFalse(self.path.exists(), "it was made anew while somebody may be restoring a copy")
                self.put_in_place(copy)
                self.assertEqual(
                    self.assert_equal_within("deleted, and put back", RETURN, [self.one, self.two]), self.state
                )
                for process in (self.one, self.two):
                    self.wait_until_it_works(process, "append_locked", "log", "c")
                self.state = self.wait_until_equal([self.one, self.two])
                self.assert_whole()

    def test_P6_deleted_and_made_anew_by_a_server_that_starts(self) -> None:
        self.path.unlink()
        (three,) = self.processes(1)
        self.assertEqual(self.assert_equal_within("deleted, and made anew", RETURN, [self.one, self.two, three]), {})
        for process in (self.one, self.two, three):
            self.wait_until_it_works(process, "increment", "n", 1)
        self.assertEqual(self.wait_until_equal([self.one, self.two, three]), {"n": 3})
        self.assert_whole()

    def test_P6_replaced_by_an_older_copy(self) -> None:
        """Moved into its place, while what is newer is still in the old one's write-ahead log."""
        copy = self.store.copy()
        self.one.do("put", "x", "newer")
        self.two.do("put", "fresh", "y" * 100_000)
        self.one.do("take", "log")
        self.one.do("append", "log", "of the newer one")
        self.wait_until_equal([self.two])
        self.put_in_place(copy)
        with self.assertRaises((LockLostError, ConnectionError)):
            self.one.do("release", "log")
        state = self.assert_equal_within("replaced by an older copy", RETURN, [self.one, self.two])
        self.assertEqual(state, self.state)
        for number, process in enumerate((self.one, self.two)):
            self.wait_until_it_works(process, "put", f"after {number}", number)
        self.assertEqual(self.wait_until_equal([self.one, self.two]), {**self.state, "after 0": 0, "after 1": 1})
        self.assert_whole()

    def test_P6_replaced_while_all_are_asleep(self) -> None:
        """The first that the copy hears of is a commit, of a process that knows a later past."""
        copy = self.store.copy()
        self.one.do("put_many", "x", list(range(20)))
        self.wait_until_equal([self.one, self.two])
        for process in (self.one, self.two):
            process.pause()
            self.addCleanup(process.go_on)
        copy.rename(self.path)
        work = self.one.begin("append_locked", "log", "c")
        for process in (self.one, self.two):
            process.go_on()
        error = work.exception(DEADLINE)
        self.assertIsInstance(error, (ConnectionError, type(None)))
        state = {"x": 1, "log": ["a", "b", "c"] if error is None else ["a", "b"]}
        self.assertEqual(self.assert_equal_within("replaced, written at once", RETURN, [self.one, self.two]), state)
        self.assert_whole()

    def test_P6_truncated(self) -> None:
        """An error that says so; nothing that is left is overwritten, and a copy is taken up at once."""
        copy = self.store.copy()
        self.one.do("put", "large", "x" * 300_000)  # more than the write-ahead log need hold
        with self.store.open() as sql:
            sql.execute("COMMIT")
            sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sql.execute("BEGIN")
        for process in (self.one, self.two):
            process.do("put", "they", "have seen how large it is")
        self.wait_until_equal([self.one, self.two])
        for size in (50_000, 0):
            with self.subTest(size):
                os.truncate(self.path, size)
                for process in (self.one, self.two):
                    self.assertIn(str(self.path), self.assert_gives_up(process, "put", "x", "lost"))
                    self.assertEqual(process.do("get", "x"), 1)
                self.assertEqual(self.path.stat().st_size, size)
        self.put_in_place(copy)
        self.assertEqual(self.assert_equal_within("truncated, and put back", RETURN, [self.one, self.two]), self.state)
        self.wait_until_it_works(self.two, "append_locked", "log", "c")
        self.assertEqual(self.wait_until_equal([self.one, self.two])["log"], ["a", "b", "c"])
        self.assert_whole()

    def test_P6_its_log_is_removed(self) -> None:
        self.one.do("put", "x", 2)
        for end in ("-wal", "-shm"):
            Path(f"{self.path}{end}").unlink()
        for number, process in enumerate((self.one, self.two)):
            self.wait_until_it_works(process, "put", f"after {number}", number)
        state = self.wait_until_equal([self.one, self.two])
        self.assertEqual((state["after 0"], state["after 1"]), (0, 1))
        self.assert_whole()

    def test_P1_the_index_of_its_log_is_removed(self) -> None:
        """Who starts then makes a new one: two of them, and two who write do not keep out each other."""
        Path(f"{self.path}-shm").unlink()
        (three,) = self.processes(1)
        processes = [self.one, self.two, three]
        for work in [process.begin("increment", "n", 200) for process in processes]:
            self.assertIsNone(work.exception(60))
        self.assertEqual(self.wait_until_equal(processes)["n"], 600)
        self.assert_whole()

    def test_P6_tidied_up_by_another_program(self) -> None:
        self.one.do("put", "large", "x" * 3_000_000)
        self.one.do("pop", "large")
        with contextlib.closing(sqlite3.connect(self.path, DEADLINE, isolation_level=None)) as sql:
            sql.execute("VACUUM")
            sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for process in (self.one, self.two):
            process.do("append_locked", "log", "c")
        self.assertEqual(self.wait_until_equal([self.one, self.two])["log"], ["a", "b", "c", "c"])


class Busy(FileCase):
    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be another program that writes, and takes its time."""
        with self.store.open():
            yield

    def test_P6_another_program_writes_for_ten_seconds(self) -> None:
        one, two = self.processes(2)
        one.do("update", {"x": 1, "log": ["a"]})
        self.wait_until_equal([one, two])
        one.do("take", "log", thread="holder")
        one.do("append", "log", "b", thread="holder")
        one.do("take", "x", thread="forces")
        one.do("force", "x", thread="forces")
        with self.locked():
            begun = time.monotonic()
            for args in (("put", "x", 2), ("increment", "x", 1), ("pop", "x"), ("setdefault", "y", 1)):
                self.assertIn(str(self.path), self.assert_gives_up(one, *args))
                self.assertEqual(one.state()["x"], 1)
            self.assert_gives_up(one, "release", "log", thread="holder")
            self.assertEqual(one.state(), {"x": 1, "log": ["a"]})
            self.assert_gives_up(one, "release", "x", thread="forces")
            wait_for("ten seconds", lambda: time.monotonic() > begun + 10)
        self.assertEqual(self.assert_equal_within("locked for 10 s", RETURN, [one, two]), {"x": 1, "log": ["a"]})
        for process in (one, two):
            self.wait_until_it_works(process, "put", "x", 3)
        self.assertTrue(two.do("take_within", LEASE + SLACK, "log"))

    def test_P6_another_program_writes_for_two_seconds(self) -> None:
        """That is waited out."""
        one, two = self.processes(2)
        one.do("put", "n", 0)
        with self.locked():
            work = [process.begin("increment", "n", 1) for process in (one, two)]
            time.sleep(2)
        for future in work:
            future.result(DEADLINE)
        self.assertEqual(self.wait_until_equal([one, two]), {"n": 2})

    def test_P6_many_threads_wait_no_longer_than_one(self) -> None:
        (one,) = self.processes(1)
        one.do("put", "x", 1)
        with self.locked():
            begun = time.monotonic()
            work = [one.begin("put", "x", number, thread=f"t{number}") for number in range(20)]
            for future in work:
                self.assertIsInstance(future.exception(DEADLINE), ConnectionError)
            self.assertLess(time.monotonic() - begun, GIVE_UP + SLACK / 2)
        self.assertEqual(self.wait_until_equal([one]), {"x": 1})


class Full(FileCase):
    def check(self, fill: Any, free: Any) -> None:
        """Writes are refused, with an error that says why, and go on once there is room again."""
        one, two = self.processes(2)
        one.do("update", {"x": 1, "log": ["a"]})
        state = self.wait_until_equal([one, two])
        fill(one)
        errors = [self.refusal(one, "put", f"large {number}", "x" * 500_000) for number in range(40)]
        said = next(filter(None, errors))
        self.assertIn(str(self.path), said)
        self.assertRegex(said, "full|I/O|large")
        self.refusal(one, "append_locked", "log", "x" * 3_000_000)
        self.assertEqual(one.do("get", "log"), ["a"])
        free(one)
        shared = self.wait_until_equal([one, two])
        self.assertEqual({key: shared[key] for key in state}, state)
        self.assertEqual(
            {key for key in shared if "large" in key}, {f"large {n}" for n, error in enumerate(errors) if not error}
        )
        for process in (one, two):
            self.wait_until_it_works(process, "append_locked", "log", "b")
        self.assertEqual(self.wait_until_equal([one, two])["log"], ["a", "b", "b"])
        self.assert_whole()

    def refusal(self, process: Process, *args: Any) -> str:
        try:
            process.do(*args)
        except ConnectionError as error:
            return str(error)
        return ""

    @unittest.skipIf(sys.platform == "win32", "there are no such limits")
    def test_P6_a_process_whose_files_may_not_grow(self) -> None:
        self.check(
            lambda process: process.do("limit_files", 4_000_000),
            lambda process: process.do("limit_files", None),
        )

    def test_P6_a_disk_that_is_full(self) -> None:
        folder = self.store.folder / "small"
        folder.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True)
        if made.returncode:
            self.skipTest(f"a small disk cannot be made here: {made.stderr.decode().strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(folder)], check=True)
        self.store.path = self.path = folder / "state.db"

        def free(process: Process) -> None:
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)

        self.check(lambda process: None, free)


class NotOurs(FileCase):
    def assert_refused(self, expected: str, error: type[Exception] = RuntimeError) -> None:
        """It is said why, and the file is left as it was."""
        before = self.contents()
        with self.assertRaisesRegex(error, expected) as raised:
            self.stranger().do("join", str(self.path), "", "")
        self.assertIn(str(self.path), str(raised.exception))
        self.assertEqual(self.contents(), before)

    def contents(self) -> dict[str, str]:
        files = [path for path in self.store.folder.iterdir() if path.is_file()]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def test_not_a_database(self) -> None:
        for data in (b"Dear diary,\n" * 1000, b"x", bytes(5000)):
            self.path.write_bytes(data)
            self.assert_refused("not a database|another program's")

    def test_a_database_of_another_program(self) -> None:
        for mode in ("DELETE", "WAL"):
            for close in (True, False):
                with self.subTest(mode=mode, close=close):
                    sql = sqlite3.connect(self.path, isolation_level=None)
                    sql.execute(f"PRAGMA journal_mode = {mode}")
                    sql.execute("CREATE TABLE IF NOT EXISTS state (app, key, data)")
                    sql.execute("INSERT INTO state VALUES (1, 2, 3)")
                    if close:
                        sql.close()
                    self.assert_refused("another program's")
                    sql.close()
                    for path in self.store.folder.iterdir():
                        path.unlink()

    def test_a_file_that_a_newer_version_wrote(self) -> None:
        one = self.process()
        one.do("put", "x", 1)
        one.close()
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as sql:
            sql.execute("PRAGMA user_version = 99")
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as sql:
            sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.assert_refused("newer version.*copy")

    def test_there_is_no_such_folder(self) -> None:
        self.path = self.store.folder / "missing" / "state.db"
        self.assert_refused("No such file or directory", ConnectionError)

    def test_a_folder(self) -> None:
        self.path.mkdir()
        with self.assertRaisesRegex(ConnectionError, "directory.*state.db"):
            self.stranger().do("join", str(self.path), "", "")

    @unittest.skipIf(sys.platform == "win32", "rights are another thing there")
    def test_a_folder_that_cannot_be_written(self) -> None:
        """As another user, if we are root, who may write everywhere."""
        folder = self.store.folder / "closed"
        folder.mkdir(mode=0o755)
        self.path = folder / "state.db"
        os.chmod(self.store.folder, 0o755)
        os.chmod(folder, 0o555)
        self.addCleanup(os.chmod, folder, 0o755)
        process = self.stranger()
        if os.geteuid() == 0:
            process.do("become_nobody")
        with self.assertRaisesRegex(ConnectionError, "Permission denied.*state.db"):
            process.do("join", str(self.path), "", "")
        os.chmod(folder, 0o755)
        one = Process(str(self.path), "", "")
        self.addCleanup(one.close)
        one.do("put", "x", 1)
        os.chmod(self.path, 0o644)
        os.chmod(folder, 0o555)
        if os.geteuid() == 0:
            with self.assertRaisesRegex(ConnectionError, "Permission denied.*state.db"):
                process.do("join", str(self.path), "", "")
            self.assertEqual(one.do("get", "x"), 1)


class Manners(FileCase):
    @unittest.skipIf(sys.platform == "win32", "rights are another thing there")
    def test_nobody_else_may_read_it(self) -> None:
        one = self.process()
        one.do("put", "x", 1)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in self.store.folder.iterdir()}
        self.assertEqual(modes, dict.fromkeys(("state.db", "state.db-wal", "state.db-shm"), 0o600))

    def test_P9_fifty_writes_of_a_large_value_leave_little(self) -> None:
        one = self.process()
        for number in range(50):
            one.do("put", "large", f"{number}" + os.urandom(2**19).hex())

        def size() -> float:
            sizes: list[int] = [path.stat().st_size for path in self.store.folder.iterdir()]
            return sum(sizes) / 2**20

        wait_for("the journal to be short", lambda: size() <= 3)

    def test_names_keep_applications_apart(self) -> None:
        one, two, plain = self.process(name="one"), self.process(name="two"), Process(str(self.path), "", "")
        self.addCleanup(plain.close)
        for number, process in enumerate((one, two, plain)):
            process.do("increment", "n", number + 1)
        self.assertEqual([process.do("get", "n") for process in (one, two, plain)], [1, 2, 3])

    def test_without_a_secret(self) -> None:
        one, two = Process(str(self.path), "", ""), Process(str(self.path), "", "")
        for process in (one, two):
            self.addCleanup(process.close)
        one.do("increment", "n", 3)
        two.do("increment", "n", 4)
        wait_for("the sum", lambda: one.state() == two.state() == {"n": 7})

    def test_one_path_however_it_is_written(self) -> None:
        one = self.process()
        one.do("put", "x", 1)
        one.do("change_folder", str(self.store.folder))
        for path in ("state.db", "./state.db", str(self.path)):
            one.do("join", path, self.name, "secret")
        with self.assertRaisesRegex(RuntimeError, "other arguments"):
            one.do("join", "another.db", self.name, "secret")
        self.assertFalse((self.store.folder / "another.db").exists())

    def test_two_versions_of_our_file(self) -> None:
        """One is a copy with another version in it, beside the first: they work together."""
        folder = self.store.folder / "newer"
        folder.mkdir()
        for path in (ROOT / "server_state.py", *HERE.glob("[!t]*.py"), HERE / "travelling.py"):
            text = path.read_text()
            (folder / path.name).write_text(text.replace("__version__ = ", '__version__ = "99" or '))
        one = self.process()
        two = Process(str(self.path), self.name, "secret", folder=folder)
        self.addCleanup(two.close)
        work = [process.begin("increment", "n", 50) for process in (one, two)]
        for future in work:
            future.result(DEADLINE)
        self.assertEqual(self.wait_until_equal([one, two]), {"n": 100})

    def test_where_what_only_unix_has_is_missing(self) -> None:
        program = """
import os, signal, sys
for name in ("register_at_fork", "fork", "getuid", "geteuid", "fchmod", "fchown", "chown", "uname", "pread", "pwrite"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
import server_state_store
from server_state import server_state, server_state_lock
server_state_store.connect(sys.argv[1])
server_state["x"] = 1
with server_state_lock["x"]:
    server_state["x"] += 1
assert server_state["x"] == 2
"""
        paths = os.pathsep.join([str(ROOT), str(HERE)])
        subprocess.run(
            [sys.executable, "-c", program, str(self.path)],
            env={**os.environ, "PYTHONPATH": paths},
            check=True,
            timeout=DEADLINE,
        )


class History(FileCase):
    """Four processes with four threads each, and faults: nothing is lost, and nobody goes back."""

    def test_increments_and_reads_with_faults(self) -> None:
        chance = random.Random(18)
        processes = self.processes(4)
        processes[0].state()  # the file is there
        until = time.monotonic() + 12

        def busy() -> None:
            """Be another program that writes now and then."""
            while time.monotonic() < until:
                with self.store.open() as sql:
                    sql.execute("CREATE TABLE IF NOT EXISTS strange (x)")
                    time.sleep(chance.random() / 5)
                time.sleep(chance.random())

        other = threading.Thread(target=busy)
        other.start()
        done = lost = 0
        histories: dict[tuple[int, int], Future[Any]] = {}
        for place, process in enumerate(processes):
            for thread in range(4):
                histories[place, thread] = process.begin("increments_and_reads", "n", 12.0, thread=f"t{thread}")
        while time.monotonic() < until:
            time.sleep(chance.random() / 2)
            victim = chance.choice(processes[:3])
            if chance.random() < 0.6:
                victim.pause()
                time.sleep(chance.random() / 2)
                victim.go_on()
            elif victim.process.poll() is None and lost < 2:
                victim.kill()
                lost += 1
        other.join()
        unsure = 0
        for (place, _), history in histories.items():
            try:
                made, unsure_here, reads = history.result(2 * DEADLINE)
            except EOFError:  # killed; what it has done it has said
                unsure += 1
                continue
            done += made
            unsure += unsure_here
            self.assertEqual(reads, sorted(reads), f"a reader of process {place} went back")
        killed = [process for process in processes if process.process.poll() is not None]
        done += sum(process.log().count("counted") for process in killed)
        total = self.wait_until_equal([process for process in processes if process not in killed])["n"]
        self.assertTrue(done <= total <= done + unsure, f"{done} and perhaps {unsure} more are {total}")
        self.assertGreater(done, 100)
        self.assert_whole()


if __name__ == "__main__":
    unittest.main()
