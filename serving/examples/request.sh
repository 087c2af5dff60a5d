#!/usr/bin/env bash
# Ask a server for the mask of an image, over REST. Needs curl, base64 and python3 or jq.
#   serving/examples/request.sh photo.jpg http://localhost:8501 mask.png
set -euo pipefail
image=$1 server=${2:-http://localhost:8501} mask=${3:-mask.png}

{ printf '{"instances": [{"image_bytes": {"b64": "'; base64 < "$image" | tr -d '\n'; printf '"}}]}'; } |
    curl --silent --show-error --fail-with-body --data-binary @- "$server/v1/models/groupvit:predict" > answer.json

python3 - "$mask" <<'PYTHON'
import base64, json, sys
answer = json.load(open("answer.json"))["predictions"][0]
open(sys.argv[1], "wb").write(base64.b64decode(answer["mask_bytes"]["b64"]))
for name, area in zip(answer["class_names"], answer["class_areas"]):
    print(f"{name}: {area:.1%}")
PYTHON
rm answer.json
