"""The files of Codeforces' standings, their download from a server, and the ratings of humans."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.codeforces_contests import Answer, contest, keep_two
from tests.verify.shared_data import shared_file, shared_rows

from progrpo.common.errors import ConfigError
from progrpo.evaluation.codeforces import contest_of, percentile_of, rate
from progrpo.evaluation.standings import download_standings, load_standings, read_human_ratings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return keep_two(tmp_path)


# -- Files -------------------------------------------------------------------------------------------------------------


def test_missing_standings_are_named_with_what_to_do(folder: Path) -> None:
    (folder / "rating_changes" / "1972.json").unlink()
    with pytest.raises(ConfigError, match=r"lacks the contests 1972, 1980: download them") as refused:
        load_standings(folder, [1971, 1972, 1980])
    assert "contest.ratingChanges?contestId=1972" in str(refused.value)
    with pytest.raises(ConfigError, match="2009 and 30 more"):
        load_standings(folder, range(2000, 2040))


@pytest.mark.parametrize("kind", ["standings", "rating_changes"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"result": [1]}', '{"result": {"rows": [{}], "problems": []}}'])
def test_the_error_names_a_file_that_is_not_an_answer(folder: Path, kind: str, text: str) -> None:
    (folder / kind / "1971.json").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(folder / kind / "1971.json"))):
        load_standings(folder, [1971])


def test_the_ratings_of_humans_are_read(tmp_path: Path) -> None:
    path = tmp_path / "ratings.json"
    path.write_text('{"-3": 1, "800": 0, "1200": 5}')
    assert read_human_ratings(path) == {-3: 1, 800: 0, 1200: 5}


@pytest.mark.parametrize("text", ["", "[1, 2]", "{}", '{"a": 1}', '{"1200": "many"}', '{"1200": 0}', '{"1200": -1}'])
def test_wrong_ratings_of_humans_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ratings.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_human_ratings(path)


def test_the_ratings_of_2024_and_the_problems_of_deepcoder_are_read() -> None:
    humans = read_human_ratings(shared_file("codeforces_ratings_2024.jsonl"))
    # The bounds of Codeforces' titles: about half are newbies and pupils, few are grandmasters.
    assert 40 < percentile_of(1200, humans) < percentile_of(1600, humans) < 99 < percentile_of(2400, humans) < 100
    (problems,) = shared_rows("codeforces_metadata.jsonl")
    contests = {contest_of(problem) for problem in problems["data"]}
    assert (len(problems["data"]), min(contests)) == (408, 1971)


# -- Download ----------------------------------------------------------------------------------------------------------


class Api:
    """A server that answers as Codeforces' API does."""

    def __init__(self, contests: dict[int, tuple[Answer, Answer]]) -> None:
        self.asked: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append(self.path)
                match = re.fullmatch(r"/api/contest\.(standings|ratingChanges)\?contestId=(\d+)(&.*)?", self.path)
                answers = contests.get(int(match[2])) if match else None
                answer = answers and answers[0 if match and match[1] == "standings" else 1]
                if answer is None:
                    answer = {"status": "FAILED", "comment": "contestId: Contest not found"}
                self.send_response(400 if answer["status"] == "FAILED" and "refused" not in answer else 200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def api() -> Iterator[Api]:
    refused = {"status": "FAILED", "comment": "Call limit exceeded", "refused": True}
    server = Api({1971: contest(1971), 1972: contest(1972, with_points=False, seed=1), 1975: (refused, refused)})
    yield server
    server.close()


def test_missing_files_are_downloaded_once_and_can_be_rated(api: Api, tmp_path: Path) -> None:
    assert download_standings([1972, 1971], tmp_path, api=api.url, pause_seconds=0) == [1971, 1972]
    assert api.asked == [
        f"/api/contest.{question}"
        for number in (1971, 1972)
        for question in (f"standings?contestId={number}&showUnofficial=false", f"ratingChanges?contestId={number}")
    ]
    results = {"1971A": (1, 1), "1972A": (1, 1)}
    rating = rate(results, load_standings(tmp_path, [1971, 1972])).rating
    assert 0 < rating < 3000
    assert download_standings([1971, 1972], tmp_path, api=api.url) == []
    (tmp_path / "rating_changes" / "1971.json").unlink()
    assert download_standings([1971, 1972], tmp_path, api=api.url) == [1971]
    assert len(api.asked) == 5


def test_a_refusal_of_the_api_is_reported_and_earlier_files_are_kept(api: Api, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"contestId=1999.* answered 400 contestId: Contest not found"):
        download_standings([1971, 1999], tmp_path, api=api.url, pause_seconds=0)
    assert list(load_standings(tmp_path, [1971])) == [1971]
    with pytest.raises(ConfigError, match=r"contestId=1975.* answered Call limit exceeded"):
        download_standings([1975], tmp_path, api=api.url)
    assert not (tmp_path / "standings" / "1975.json").exists()


def test_an_api_that_is_not_there_is_reported(api: Api, tmp_path: Path) -> None:
    api.close()
    with pytest.raises(ConfigError, match=r"contestId=1971.* can't be downloaded .*; fetch it where the network"):
        download_standings([1971], tmp_path, api=api.url)
    assert list(tmp_path.rglob("*.*")) == []
