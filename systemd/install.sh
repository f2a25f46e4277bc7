#!/bin/sh
# The service made, upgraded and taken away: install.sh install|uninstall, as root. `./run install` calls it.
#
# DESTDIR lays everything below another root and leaves this machine's users and service manager alone; FIRTH_PYTHON
# names the interpreter. State, settings and the service's user are touched by neither of the two.
set -eu
umask 022 # the service's user must be able to read what root installs

tree=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
root=${DESTDIR-}
python=${FIRTH_PYTHON:-/usr/bin/python3}
home=$root/opt/firth
units=$root/etc/systemd/system
bin=$root/usr/local/bin
share=$root/usr/local/share
socket=/run/firth/firth.sock

say() { printf '%-12s %s\n' "$1" "$2"; }

die() {
    printf 'install: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Is there a service manager to speak to?
managed() { [ -z "$root" ] && [ -d /run/systemd/system ] && have systemctl; }

version() { "$home/bin/firthd" --version 2>/dev/null || true; }

# lay FILE TARGET: put a file in its place in one step, so that a reader sees the old one or the new one.
lay() {
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2.new"
    chmod 644 "$2.new"
    mv -f "$2.new" "$2"
}

# Is what stands at this path a link into our home, or nothing?
ours() {
    if [ -L "$1" ]; then
        case $(readlink "$1") in
        /opt/firth/bin/*) return 0 ;;
        *) return 1 ;;
        esac
    fi
    [ ! -e "$1" ]
}

check() {
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || die "needs root: sudo ./run $what"
    case $home in *[[:space:]]*) die "$home has a space in it; Python's programs cannot start from there" ;; esac
    if [ -L "$home" ] || { [ -e "$home" ] && [ ! -e "$home/pyvenv.cfg" ] && [ -n "$(ls -A "$home")" ]; }; then
        die "$home holds something else; move it away first"
    fi
}

make_venv() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "Firth needs Python 3.11 or later at $python"
    # One below /root or /home would be hidden from the service.
    case $("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
    /root/* | /home/*) die "$python leads into a folder that the service cannot see; FIRTH_PYTHON names another one" ;;
    esac
    "$home/bin/python" -m pip --version >/dev/null 2>&1 && return 0
    # New, or its interpreter has gone with an upgrade of the system.
    "$python" -m venv --clear "$home" || die "$python cannot make virtual environments (Debian: apt install python3-venv)"
}

# Everything is fetched and built first: where that fails, what is installed has not been touched.
install_programs() {
    wheels=$(mktemp -d)
    trap 'rm -rf "$wheels"' EXIT
    trap 'exit 130' INT TERM HUP
    "$home/bin/python" -m pip wheel --quiet --wheel-dir "$wheels" "$tree" ||
        die "the libraries could not be had; what was installed before is as it was"
    broken="the programs could not be installed; when the cause is gone, run it again. No state is lost."
    set -- "$wheels"/firth-*.whl
    [ -e "$1" ] || die "no wheel was built"
    "$home/bin/python" -m pip install --quiet --no-index --find-links "$wheels" --upgrade "$1" || die "$broken"
    # Of the same version as before pip would leave the old files.
    "$home/bin/python" -m pip install --quiet --no-index --no-deps --force-reinstall "$1" || die "$broken"
}

link_programs() {
    mkdir -p "$bin"
    for name in firth firthctl firthd; do
        if ours "$bin/$name"; then
            ln -sf "${home#"$root"}/bin/$name" "$bin/$name"
        else
            say "left alone" "$bin/$name is somebody else's; ${home#"$root"}/bin/$name is ours"
        fi
    done
    say programs "firth, firthctl, firthd in $bin"
}

lay_texts() {
    files=$home/share/firth/systemd
    lay "$files/firth.sysusers.conf" "$root/etc/sysusers.d/firth.conf"
    lay "$files/firth.tmpfiles.conf" "$root/etc/tmpfiles.d/firth.conf"
    for unit in firthd.service firthd.socket firthd-web.socket; do lay "$files/$unit" "$units/$unit"; done
    say units "firthd.service, firthd.socket, firthd-web.socket in $units"
    for page in man1/firth.1 man1/firthctl.1 man8/firthd.8; do
        lay "$home/share/man/$page" "$share/man/$page"
    done
    say "man pages" "firth(1), firthctl(1), firthd(8) in $share/man"
    scripts=$(mktemp)
    for target in bash:bash-completion/completions/firthctl zsh:zsh/site-functions/_firthctl \
        fish:fish/vendor_completions.d/firthctl.fish; do
        "$home/bin/firthctl" completion "${target%%:*}" >"$scripts"
        lay "$scripts" "$share/${target#*:}"
    done
    rm -f "$scripts"
    say completion "for bash, zsh and fish in $share"
}

start() {
    systemd-sysusers /etc/sysusers.d/firth.conf
    systemd-tmpfiles --create /etc/tmpfiles.d/firth.conf
    systemctl daemon-reload
    systemctl --quiet enable firthd.socket firthd.service
    before=$(systemctl is-active firthd.service || true)
    if ! systemctl restart firthd.service; then
        systemctl --no-pager --lines=5 status firthd.service || true
        die "the programs are installed, but the service did not start; journalctl -u firthd has more. No state is lost."
    fi
    case $before in
    active) say service "restarted" ;;
    *) say service "started, and enabled for every boot" ;;
    esac
    "$home/bin/firthctl" --socket "$socket" daemon.status --table --columns version,addresses,socket
}

install_all() {
    was=$(version)
    made=$([ -d "$root/var/lib/firth" ] && echo "kept as it was" || echo "new")
    make_venv
    install_programs
    now=$(version)
    say installed "$now in $home${was:+ (before: $was)}"
    link_programs
    lay_texts
    if managed; then
        start
    else
        say service "not started: ${root:+DESTDIR is set}${root:-there is no systemd at work here}"
    fi
    say state "$root/var/lib/firth, $made"
}

uninstall_all() {
    if managed; then
        # All at once: a call on a socket would start the service again.
        set --
        for unit in firthd.socket firthd-web.socket firthd.service; do
            [ ! -e "$units/$unit" ] || set -- "$@" "$unit"
        done
        [ $# -eq 0 ] || systemctl --quiet disable --now "$@" || die "$* could not be stopped"
    fi
    for name in firth firthctl firthd; do
        if [ -L "$bin/$name" ] && ours "$bin/$name"; then rm -f "$bin/$name"; fi
    done
    rm -f "$units/firthd.service" "$units/firthd.socket" "$units/firthd-web.socket" \
        "$root/etc/sysusers.d/firth.conf" "$root/etc/tmpfiles.d/firth.conf" \
        "$share/man/man1/firth.1" "$share/man/man1/firthctl.1" "$share/man/man8/firthd.8" \
        "$share/bash-completion/completions/firthctl" "$share/zsh/site-functions/_firthctl" \
        "$share/fish/vendor_completions.d/firthctl.fish"
    rm -rf "$home"
    if managed; then
        systemctl daemon-reload
        systemctl reset-failed firthd.service firthd.socket firthd-web.socket 2>/dev/null || true
    fi
    say removed "programs, units, man pages and completion"
    for left in /var/lib/firth /var/cache/firth /etc/firth /etc/systemd/system/firthd.service.d; do
        [ ! -e "$root$left" ] || say left "$root$left"
    done
    [ -n "$root" ] || ! id firth >/dev/null 2>&1 || say left "user firth, whose the state is (userdel firth)"
}

what=${1-}
case $what in
install)
    check
    install_all
    ;;
uninstall)
    check
    uninstall_all
    ;;
*) die "write install or uninstall" ;;
esac
