"""schemas.py WHEEL FOLDER: unpacks the newest schemas of Kubernetes from a wheel of kubernetes-validate, made strict.

The schemas admit members that they do not name. kubeconform leaves that as it is, so a misspelt member would pass.
"""

import json
import re
import sys
import zipfile
from pathlib import Path

NAME = re.compile(r"kubernetes_validate/kubernetes-json-schema/v(\d+)\.(\d+)\.(\d+)-local/([a-z0-9_.-]+\.json)")


def strict(schema):
    """Adds `additionalProperties: false` to every object with named members."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    # With an address of its own, a file would be looked for there.
    made = {name: strict(value) for name, value in schema.items() if not (name == "$id" and isinstance(value, str))}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        made["additionalProperties"] = False
    # The file lies beside the others here.
    if isinstance(schema.get("$ref"), str):
        made["$ref"] = schema["$ref"].replace("/api/_definitions.json", "_definitions.json")
    return made


def main():
    wheel, folder = sys.argv[1], Path(sys.argv[2])
    with zipfile.ZipFile(wheel) as archive:
        found = [match for match in map(NAME.fullmatch, archive.namelist()) if match]
        newest = max(tuple(map(int, match.groups()[:3])) for match in found)
        for match in found:
            if tuple(map(int, match.groups()[:3])) != newest:
                continue
            text = archive.read(match.group(0))
            (folder / match.group(4)).write_text(json.dumps(strict(json.loads(text))))
    print(".".join(map(str, newest)))


main()
