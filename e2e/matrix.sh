#!/usr/bin/env bash
# The unit tests and the websocket tests with each supported Streamlit, two releases at a time, and the unit tests with
# each Python that is there. Prints one table; the logs of what failed come before it.
set -uo pipefail
cd "$(dirname "$0")/.."
export work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/uv" && "$work/uv/bin/pip" install -q --disable-pip-version-check uv || exit 1

streamlit() { # with one release; "newest" is what pip would take
  local env="$work/streamlit-$1" name=$1
  "$work/uv/bin/uv" venv -q --python "$(command -v python3)" "$env"
  [ "$name" = newest ] && name=streamlit || name="streamlit==$name"
  "$work/uv/bin/uv" pip install -q --python "$env/bin/python" "$name" websockets uvicorn || return
  name=$("$env/bin/python" -c "import streamlit; print(streamlit.__version__)")
  {
    "$env/bin/python" -m unittest 2>&1 | tee "$env/unit.log"
    (cd e2e && "$env/bin/python" -W ignore -m unittest -v test_real_server test_moving_over test_streamlit_facts test_load) 2>&1 | tee "$env/e2e.log"
  } > "$env/log"
  row "$name" "$("$env/bin/python" -c 'import platform; print(platform.python_version())')" "$env"
}

bare() { # with one Python, and no Streamlit
  local env="$work/python-$1"
  mkdir "$env"
  "$2" -m unittest > "$env/unit.log" 2>&1
  cp "$env/unit.log" "$env/log"
  row none "$("$2" -c 'import platform; print(platform.python_version())')" "$env"
}

row() { # Streamlit, Python, folder
  local cells="" log
  for log in unit e2e; do
    [ -e "$3/$log.log" ] && cells+=" $(sed -n 's/^Ran \([0-9]*\) tests.*/\1/p' "$3/$log.log" | tail -n 1): $(tail -n 1 "$3/$log.log") |" || cells+=" |"
  done
  echo "| $1 | $2 |$cells" > "$3/row"
  tail -n 1 -q "$3"/unit.log "$3"/e2e.log 2> /dev/null | grep -qv "^OK" && { echo "== Streamlit $1, Python $2"; cat "$3/log"; }
  return 0
}

export -f streamlit bare row
printf '%s\n' newest 1.62.0 1.58.0 1.53.1 1.50.0 1.45.1 1.40.2 1.37.1 | xargs -P 2 -I{} bash -c 'streamlit {}'
for minor in 10 11 12 13; do
  python=$(ls "$HOME"/.pyenv/versions/3.$minor.*/bin/python /usr/bin/python3.$minor /usr/local/bin/python3.$minor 2> /dev/null | tail -n 1)
  [ -n "$python" ] && bare "$minor" "$python"
done

echo "| Streamlit | Python | unit tests | websocket tests |"
echo "| --- | --- | --- | --- |"
cat "$work"/streamlit-*/row | sort -t. -k2,2nr
cat "$work"/python-*/row 2> /dev/null
[ "$(ls -d "$work"/streamlit-* | wc -l)" = "$(cat "$work"/streamlit-*/row | wc -l)" ] && ! cat "$work"/*/row | grep -qv "| [0-9]*: OK.*|"  && ! cat "$work"/*/row | grep -q FAILED
