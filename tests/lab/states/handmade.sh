#!/bin/sh
# A box on which somebody followed the tuning chapter halfway, with models and pictures of theirs.
set -eu
home=/home/strix
mkdir -p /etc/apt/keyrings
curl -fsS http://radeon.lab/rocm/rocm.gpg.key | gpg --dearmor > /etc/apt/keyrings/rocm.gpg
echo "deb [arch=amd64 signed-by=/etc/apt/keyrings/rocm.gpg] http://radeon.lab/rocm/apt/6.3.4 noble main" \
    > /etc/apt/sources.list.d/rocm.list
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# Without the pin universe's rocminfo 5.7.1 would be taken; half of the stack came by name.
apt-get install -qy --no-install-recommends git rocm-core rocblas hip-runtime-amd \
    rocminfo=1.0.0.60304-76~24.04
cat >> "$home/.bashrc" <<'RC'
# my own aliases
alias ll='ls -l --color=auto'
export EDITOR=nano
# Add to ~/.bashrc
export HSA_OVERRIDE_GFX_VERSION=11.0.0
export PYTORCH_ROCM_ARCH=gfx1100
export GPU_MAX_ALLOC_PERCENT=95
RC
mv "$home/.bashrc" "$home/dotfiles-bashrc"
ln -s dotfiles-bashrc "$home/.bashrc"
printf 'HSA_OVERRIDE_GFX_VERSION=11.0.0\n' >> /etc/environment
cat >> /etc/fstab <<'TAB'
# my backup disk, not always there
LABEL=backup   /mnt/backup	ext4  noauto,nofail 0 2
tmpfs /tmp/comfyui_cache tmpfs size=32G,mode=1777 0 0
TAB
printf '# no newline at the end' >> /etc/fstab
su strix -c "git clone -q http://mirror.lab/git/ComfyUI.git $home/ComfyUI"
base=$home/ComfyUI
su strix -c "mkdir -p $base/models/checkpoints $base/models/loras $base/output $base/input \
    $base/user/default/workflows $base/custom_nodes/MyNode"
head -c 300000 /dev/urandom > "$base/models/checkpoints/my model.safetensors"
head -c 100000 /dev/urandom > "$base/models/loras/größe.safetensors"
head -c 20000 /dev/urandom > "$base/output/ComfyUI_00001_.png"
echo '{"nodes": []}' > "$base/user/default/workflows/mine.json"
cat > "$base/custom_nodes/MyNode/__init__.py" <<'PY'
import comfy_extra_dep


class MyNode:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "go"
    CATEGORY = "mine"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


NODE_CLASS_MAPPINGS = {"MyNode": MyNode}
PY
printf 'torch\ncomfy-extra-dep\n' > "$base/custom_nodes/MyNode/requirements.txt"
chown -R strix:strix "$home"
apt-get clean
