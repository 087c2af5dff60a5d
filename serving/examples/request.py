"""Ask a server for the mask of an image, over REST. Needs nothing but Python.

python serving/examples/request.py photo.jpg http://localhost:8501 mask.png
"""

import base64
import json
import sys
import urllib.request


def main(image: str, server: str = "http://localhost:8501", mask: str = "mask.png") -> None:
    with open(image, "rb") as file:
        row = {"image_bytes": {"b64": base64.b64encode(file.read()).decode()}}
    body = json.dumps({"instances": [row]}).encode()
    with urllib.request.urlopen(f"{server}/v1/models/groupvit:predict", body) as response:
        answer = json.load(response)["predictions"][0]
    with open(mask, "wb") as file:
        file.write(base64.b64decode(answer["mask_bytes"]["b64"]))
    for name, area in zip(answer["class_names"], answer["class_areas"], strict=True):
        print(f"{name}: {area:.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
