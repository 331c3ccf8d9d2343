#!/bin/sh
# A box on which somebody took ROCm's tools from Ubuntu: their versions sort above AMD's own.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends rocminfo hipcc
apt-get clean
