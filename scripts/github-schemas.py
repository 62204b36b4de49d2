"""Reduces GitHub's description of its API and webhooks to the operations that tests/github serves.

Called by github-schemas.sh with the three packages and the folder to write to. What only explains (descriptions,
examples, vendor extensions) is dropped; what a request or an answer must look like is kept word for word.
"""

import hashlib
import json
import pathlib
import sys
import tarfile

OPERATIONS = """
get /app/installations/{installation_id}
post /app/installations/{installation_id}/access_tokens
get /installation/repositories
get /meta
get /rate_limit
get /orgs/{org}/actions/runner-groups
get /orgs/{org}/actions/runner-groups/{runner_group_id}/repositories
get /orgs/{org}/actions/runners
get /orgs/{org}/actions/runners/{runner_id}
delete /orgs/{org}/actions/runners/{runner_id}
post /orgs/{org}/actions/runners/generate-jitconfig
post /orgs/{org}/actions/runners/registration-token
get /repos/{owner}/{repo}
get /repos/{owner}/{repo}/actions/jobs/{job_id}
post /repos/{owner}/{repo}/actions/jobs/{job_id}/rerun
get /repos/{owner}/{repo}/actions/permissions/fork-pr-contributor-approval
get /repos/{owner}/{repo}/actions/runners
get /repos/{owner}/{repo}/actions/runners/{runner_id}
delete /repos/{owner}/{repo}/actions/runners/{runner_id}
post /repos/{owner}/{repo}/actions/runners/generate-jitconfig
post /repos/{owner}/{repo}/actions/runners/registration-token
get /repos/{owner}/{repo}/actions/runs
get /repos/{owner}/{repo}/actions/runs/{run_id}
post /repos/{owner}/{repo}/actions/runs/{run_id}/cancel
get /repos/{owner}/{repo}/actions/runs/{run_id}/jobs
get /repos/{owner}/{repo}/pulls/{pull_number}
get /repos/{owner}/{repo}/releases/latest
"""
ACTIONS = ["queued", "waiting", "in_progress", "completed"]
# Keys of a schema that explain rather than demand.
PROSE = {"description", "example", "examples", "summary", "title", "externalDocs", "operationId", "tags", "default",
         "deprecated", "tsAdditionalProperties", "$schema"}


def member(package, name):
    """The JSON of a file in a package."""
    with tarfile.open(package) as archive:
        return json.load(archive.extractfile(f"package/{name}"))


def plain(value, names_are_data=False):
    """A schema without its prose; the names of properties, schemas and headers are no prose."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, item in value.items():
        if names_are_data or not (key in PROSE or key.startswith("x-")):
            kept[key] = item if key in ("enum", "const", "required") and not names_are_data else plain(
                item, not names_are_data and key in ("properties", "definitions", "responses", "headers", "content"))
    return kept


def references(value):
    """Every `$ref` in a value."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref" and isinstance(item, str):
                yield item
            else:
                yield from references(item)


def with_what_it_refers_to(document, kept):
    """Adds to `kept` whatever it refers to in `document`."""
    todo = list(references(kept))
    seen = set()
    while todo:
        reference = todo.pop()
        if reference in seen:
            continue
        seen.add(reference)
        path = reference.removeprefix("#/").split("/")
        source, place = document, kept
        for part in path[:-1]:
            source, place = source[part], place.setdefault(part, {})
        place[path[-1]] = plain(source[path[-1]])
        todo.extend(references(place[path[-1]]))
    return kept


def api(document):
    """The reduced description of the API."""
    paths = {}
    for line in OPERATIONS.split("\n"):
        if line:
            method, path = line.split(" ")
            operation = document["paths"][path][method]
            paths.setdefault(path, {})[method] = plain(
                {key: operation[key] for key in ("parameters", "requestBody", "responses") if key in operation})
    return with_what_it_refers_to(document, {"openapi": document["openapi"], "paths": paths})


def webhooks(document):
    """The reduced schemas of the `workflow_job` webhooks."""
    names = [f"workflow_job${action}" for action in ACTIONS]
    return with_what_it_refers_to(document, {"definitions": {name: plain(document["definitions"][name]) for name in names}})


def main(openapi, schemas, examples, target):
    target = pathlib.Path(target)
    shipped = member(examples, "api.github.com/index.json")
    files = {
        "openapi.json": api(member(openapi, "generated/api.github.com.json")),
        "webhooks.json": webhooks(member(schemas, "schema.json")),
        "workflow-job-examples.json": next(event["examples"] for event in shipped if event["name"] == "workflow_job"),
    }
    sums = ""
    for name, content in sorted(files.items()):
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
        (target / name).write_text(text, encoding="utf-8")
        sums += f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n"
    (target / "sha256.txt").write_text(sums, encoding="utf-8")


main(*sys.argv[1:])
