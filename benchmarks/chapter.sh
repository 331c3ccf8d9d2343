#!/bin/bash
# What a reader of the tuning chapter types on a bare box, as a script: the yardstick for a first
# deploy. AMD, INDEX, WHEELS, COMFYUI, TILED, MODELS, SIZE and FLAGS name where things come from and
# how ComfyUI is started, so that both sides use the same mirror and machine. Pins, hashes, proofs and second runs are not the chapter's concern.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

# 7.1.3: ROCm
sudo apt-get update --quiet
sudo apt-get install --yes --quiet --no-install-recommends git python3-venv
sudo apt-get remove --purge --yes --quiet 'rocm-*' 'hip-*' || true
sudo apt-get autoremove --yes --quiet
sudo mkdir -p /etc/apt/keyrings
curl --fail --silent --show-error "$AMD/rocm/rocm.gpg.key" | gpg --dearmor |
    sudo tee /etc/apt/keyrings/rocm.gpg > /dev/null
echo "deb [arch=amd64 signed-by=/etc/apt/keyrings/rocm.gpg] $AMD/rocm/apt/6.4.2 noble main" |
    sudo tee /etc/apt/sources.list.d/rocm.list > /dev/null
# Without a pin, the distribution's own rocminfo would be taken.
printf 'Package: *\nPin: origin %s\nPin-Priority: 1001\n' "${AMD#*//}" |
    sudo tee /etc/apt/preferences.d/rocm > /dev/null
sudo apt-get update --quiet
sudo apt-get install --yes --quiet rocm-hip-sdk rocm-libs
sudo usermod --append --groups render,video "$USER"

# ComfyUI itself, with torch for ROCm
git clone --quiet "$COMFYUI" ~/ComfyUI
python3 -m venv ~/ComfyUI/venv
pip() { ~/ComfyUI/venv/bin/pip --disable-pip-version-check --quiet "$@"; }
from=(--index-url "$INDEX" --trusted-host "$(cut -d/ -f3 <<< "$INDEX")" --trusted-host "${AMD#*//}")
# shellcheck disable=SC2086 # a list of URLs
pip install "${from[@]}" $WHEELS
pip install "${from[@]}" --requirement ~/ComfyUI/requirements.txt

# 7.6.2: Tiled VAE
git clone --quiet "$TILED" ~/ComfyUI/custom_nodes/ComfyUI-TiledVAE

# 7.8.1: models
for model in $MODELS; do
    mkdir -p ~/ComfyUI/models/"${model%%=*}"
    (cd ~/ComfyUI/models/"${model%%=*}" && curl --fail --silent --show-error --remote-name "${model#*=}")
done

# 7.1.1: variables of the login shell
cat >> ~/.bashrc << 'EOT'
export HSA_OVERRIDE_GFX_VERSION=11.0.0
export PYTORCH_ROCM_ARCH=gfx1100
export PYTORCH_TUNABLEOP_ENABLED=1
export GPU_MAX_ALLOC_PERCENT=95
EOT

# 7.8.3: RAM disk
echo "tmpfs /tmp/comfyui_cache tmpfs size=${SIZE}G,mode=1777 0 0" | sudo tee -a /etc/fstab > /dev/null
sudo mkdir -p /tmp/comfyui_cache
sudo mount /tmp/comfyui_cache

# 7.9: monitoring
sudo apt-get install --yes --quiet --no-install-recommends htop

# 7.12: the production script, started
cat > ~/ComfyUI/launch_comfyui_production.sh << EOT
#!/bin/bash
export HSA_OVERRIDE_GFX_VERSION=11.0.0
export PYTORCH_ROCM_ARCH=gfx1100
export GPU_MAX_ALLOC_PERCENT=95
export OMP_NUM_THREADS=16
cd ~/ComfyUI
exec venv/bin/python main.py $FLAGS --preview-method auto --temp-directory /tmp/comfyui_cache \
    --listen 0.0.0.0 --port 8188
EOT
chmod +x ~/ComfyUI/launch_comfyui_production.sh
nohup ~/ComfyUI/launch_comfyui_production.sh > ~/ComfyUI/log 2>&1 < /dev/null &
for _ in $(seq 480); do
    curl --fail --silent http://127.0.0.1:8188/system_stats > /dev/null && exit 0
    sleep 0.25
done
echo "ComfyUI does not answer; see ~/ComfyUI/log" >&2
exit 1
