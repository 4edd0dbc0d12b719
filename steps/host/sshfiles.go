package host

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/steps"
)

// Files, ports and processes over SSH: scripts in POSIX sh with stat, head, find, readlink and mktemp as
// GNU and busybox have them. No SFTP, because it cannot fsync everywhere and knows no /proc.

// ask runs a script that only looks or is safe to lose, and turns its failure into an error.
func (m *sshHost) ask(ctx context.Context, what, script string, stdin []byte) (string, error) {
	return m.askLimit(ctx, what, script, stdin, defaultLimit)
}

func (m *sshHost) askLimit(ctx context.Context, what, script string, stdin []byte, limit int) (string, error) {
	r, err := m.scriptLimit(ctx, script, stdin, limit)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if r.Code == 0 {
		return r.Stdout.Text, nil
	}
	said := strings.TrimSpace(r.Stderr.Text)
	switch {
	case r.Code == codeAbsent, strings.Contains(said, "No such file"), strings.Contains(said, "nonexistent directory"):
		err = fs.ErrNotExist
	case strings.Contains(said, "ermission denied"):
		err = fs.ErrPermission
	default:
		return "", steps.Errorf("failed", "%s on %s: %s (exit %d)", what, m, said, r.Code)
	}
	if said == "" {
		return "", fmt.Errorf("%s on %s: %w", what, m, err)
	}
	return "", fmt.Errorf("%s on %s: %s: %w", what, m, said, err)
}

func (m *sshHost) ReadFile(ctx context.Context, path string, limit int64) ([]byte, error) {
	out, err := m.askLimit(ctx, "read "+path, fmt.Sprintf("head -c %d <%s", limit+1, quote(path)), nil, int(limit)+64)
	if err != nil {
		return nil, err
	}
	if int64(len(out)) > limit {
		return nil, tooLarge(m, path, limit)
	}
	return []byte(out), nil
}

func (m *sshHost) WriteFile(ctx context.Context, path string, content []byte, mode fs.FileMode) error {
	wanted := ""
	if mode != 0 {
		wanted = strconv.FormatUint(uint64(mode.Perm()), 8)
	}
	script := fmt.Sprintf(`p=%s; m=%s; n=%d; own=
if [ -L "$p" ]; then [ -e "$p" ] || { echo 'it is a symbolic link to nothing' >&2; exit %d; }; p=$(readlink -f -- "$p"); fi
if [ -e "$p" ]; then
	[ -f "$p" ] || { echo 'it is no regular file' >&2; exit 1; }
	own=$(stat -c %%u:%%g -- "$p"); m=${m:-$(stat -c %%a -- "$p")}
fi
d=$(dirname -- "$p")
umask 077
t=$(mktemp "$d/.$(basename -- "$p").XXXXXXXX") || exit 1
trap 'rm -f -- "$t"' EXIT
head -c $n >"$t" || exit 1
[ $(wc -c <"$t") -eq $n ] || { echo 'the connection ended early' >&2; exit 1; }
[ -z "$own" ] || [ "$own" = "$(stat -c %%u:%%g -- "$t")" ] || chown -- "$own" "$t" || exit 1
chmod -- "${m:-644}" "$t" && sync -- "$t" && mv -f -- "$t" "$p" || exit 1
sync -- "$d"
`, quote(path), wanted, len(content), codeAbsent)
	_, err := m.ask(ctx, "write "+path, script, content)
	return err
}

func (m *sshHost) Remove(ctx context.Context, path string) error {
	_, err := m.ask(ctx, "remove "+path, "rm -rf -- "+quote(path), nil)
	return err
}

func (m *sshHost) Mkdir(ctx context.Context, path string, mode fs.FileMode) error {
	_, err := m.ask(ctx, "make directory "+path, fmt.Sprintf("[ -d %s ] || mkdir -p -m %o -- %s", quote(path), mode.Perm(), quote(path)), nil)
	return err
}

const statFormat = "'%f %s %Y %u %g %n'"

func (m *sshHost) Stat(ctx context.Context, name string) (File, error) {
	out, err := m.ask(ctx, "look at "+name, "stat -c "+statFormat+" -- "+quote(name), nil)
	if err != nil {
		return File{}, err
	}
	f, err := parseStat(strings.TrimSuffix(out, "\n"))
	if err != nil {
		return File{}, fmt.Errorf("look at %s on %s: %w", name, m, err)
	}
	f.Name = path.Base(name)
	return f, nil
}

func (m *sshHost) List(ctx context.Context, name string) ([]File, error) {
	out, err := m.askLimit(ctx, "list "+name, "stat -L -- "+quote(name)+" >/dev/null && cd -- "+quote(name)+" && find . -mindepth 1 -maxdepth 1 -exec stat -c "+statFormat+" {} +", nil, 64<<20)
	if err != nil {
		return nil, err
	}
	files := []File{}
	for line := range strings.Lines(out) {
		f, err := parseStat(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("list %s on %s: %w", name, m, err)
		}
		f.Name = strings.TrimPrefix(f.Name, "./")
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return files, nil
}

// parseStat reads a line of statFormat.
func parseStat(line string) (File, error) {
	p := strings.SplitN(line, " ", 6)
	if len(p) != 6 {
		return File{}, fmt.Errorf("stat said %q", line)
	}
	var n [5]int64
	for i := range n {
		base := 10
		if i == 0 {
			base = 16
		}
		v, err := strconv.ParseInt(p[i], base, 64)
		if err != nil {
			return File{}, fmt.Errorf("stat said %q: %w", line, err)
		}
		n[i] = v
	}
	return File{Name: p[5], Mode: fileMode(uint32(n[0])), Size: n[1], Modified: time.Unix(n[2], 0), UID: int(n[3]), GID: int(n[4])}, nil
}

// fileMode translates st_mode.
func fileMode(st uint32) fs.FileMode {
	mode := fs.FileMode(st & 0o777)
	types := map[uint32]fs.FileMode{
		0o040000: fs.ModeDir, 0o120000: fs.ModeSymlink, 0o060000: fs.ModeDevice, 0o010000: fs.ModeNamedPipe,
		0o140000: fs.ModeSocket, 0o020000: fs.ModeDevice | fs.ModeCharDevice,
	}
	mode |= types[st&0o170000]
	for bit, m := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if st&bit != 0 {
			mode |= m
		}
	}
	return mode
}

func (m *sshHost) RealPath(ctx context.Context, name string) (string, error) {
	out, err := m.ask(ctx, "resolve "+name, "stat -L -c %i -- "+quote(name)+" >/dev/null && readlink -f -- "+quote(name), nil)
	return strings.TrimSuffix(out, "\n"), err
}

func (m *sshHost) Listening(ctx context.Context, port int) (Listener, error) {
	out, err := m.askLimit(ctx, "look for listeners", "cat /proc/net/tcp || exit 1; cat /proc/net/tcp6 2>/dev/null; true", nil, 64<<20)
	if err != nil {
		return Listener{}, err
	}
	r := Listener{Port: port}
	var inodes []string
	r.Addrs, inodes = parseListeners(port, out)
	r.Open = len(r.Addrs) > 0
	if len(inodes) == 0 {
		return r, nil
	}
	for i, n := range inodes {
		inodes[i] = "*'socket:[" + n + "]'*"
	}
	out, err = m.ask(ctx, "look for listeners", fmt.Sprintf(`for p in /proc/[0-9]*; do
	case $(ls -l "$p/fd" 2>/dev/null) in
	%s) echo "${p#/proc/}"; tr '\0' ' ' <"$p/cmdline"; exit 0;;
	esac
done`, strings.Join(inodes, "|")), nil)
	if err != nil {
		return r, err
	}
	pid, cmdline, _ := strings.Cut(out, "\n")
	r.PID, _ = strconv.Atoi(pid) // none: not visible to this user
	r.Process = strings.TrimSpace(cmdline)
	return r, nil
}

func (m *sshHost) Look(ctx context.Context, name string, versionArgs ...string) (Tool, error) {
	out, err := m.ask(ctx, "look for command "+name, fmt.Sprintf(`n=%s
case $n in */*) [ -f "$n" ] && [ -x "$n" ] && readlink -f -- "$n" && exit 0; exit %d;; esac
IFS=:
for d in $PATH; do [ -f "$d/$n" ] && [ -x "$d/$n" ] && { printf '%%s\n' "$d/$n"; exit 0; }; done
exit %d
`, quote(name), codeAbsent, codeAbsent), nil)
	if err != nil {
		return Tool{}, err
	}
	t := Tool{Path: strings.TrimSuffix(out, "\n")}
	if len(versionArgs) == 0 {
		return t, nil
	}
	return askVersion(ctx, m, t, versionArgs)
}

func (m *sshHost) Disk(ctx context.Context, name string) (Disk, error) {
	what := "look at the disk of " + name
	out, err := m.ask(ctx, what, fmt.Sprintf(`p=%s
while [ ! -e "$p" ]; do q=$(dirname -- "$p"); [ "$q" != "$p" ] || exit %d; p=$q; done
stat -f -c '%%S %%b %%a' -- "$p" && stat -L -c %%d -- "$p" && printf '%%s' "$p"
`, quote(name), codeAbsent), nil)
	if err != nil {
		return Disk{}, err
	}
	var d Disk
	var size, total, free int64
	var dev uint64
	if _, err := fmt.Sscanf(out, "%d %d %d\n%d\n", &size, &total, &free, &dev); err != nil {
		return d, fmt.Errorf("%s on %s: stat said %q: %w", what, m, out, err)
	}
	d.Total, d.Free, d.Path = size*total, size*free, strings.SplitN(out, "\n", 3)[2]
	files := rotationalFiles(dev)
	if len(files) == 0 {
		return d, nil
	}
	out, err = m.ask(ctx, what, "cat "+files[0]+" 2>/dev/null || cat "+files[1]+" 2>/dev/null; true", nil)
	d.Rotational = parseRotational(out)
	return d, err
}

func (m *sshHost) Facts(ctx context.Context) (Facts, error) {
	out, err := m.ask(ctx, "ask for facts", `uname -n && id -un && echo "$HOME" && cat /proc/self/mounts`, nil)
	if err != nil {
		return Facts{}, err
	}
	l := strings.SplitN(out, "\n", 4)
	if len(l) < 4 {
		return Facts{}, fmt.Errorf("ask %s for facts: it said %q", m, out)
	}
	return Facts{Hostname: l[0], User: l[1], Home: l[2], Mounts: parseMounts(l[3])}, nil
}

func (m *sshHost) Process(ctx context.Context, pid int) (Process, error) {
	what := "process " + strconv.Itoa(pid)
	// stat may hold any bytes of the command's name, so it comes encoded on one line.
	out, err := m.ask(ctx, what, fmt.Sprintf(`cat /proc/sys/kernel/random/boot_id && grep '^btime ' /proc/stat || exit 1
s=$(cat /proc/%d/stat 2>/dev/null) || exit %d
printf '%%s' "$s" | base64 | tr -d '\n'; echo
cat /proc/%d/cmdline 2>/dev/null; true
`, pid, codeAbsent, pid), nil)
	if err != nil {
		return Process{}, err
	}
	l := strings.SplitN(out, "\n", 4)
	if len(l) < 4 {
		return Process{}, fmt.Errorf("%s on %s: it said %q", what, m, out)
	}
	stat, err := base64.StdEncoding.DecodeString(l[2])
	if err != nil {
		return Process{}, fmt.Errorf("%s on %s: %w", what, m, err)
	}
	return parseProcess(pid, string(stat), l[3], l[0], l[1])
}

func (m *sshHost) Signal(ctx context.Context, p Process, sig Signal, group bool) error {
	if _, ok := signals[sig]; !ok {
		return steps.Errorf("signal", "signal %s: not known", sig)
	}
	to := `"$p"`
	if group {
		to = `"$t"`
	}
	_, err := m.ask(ctx, fmt.Sprintf("send %s to process %d", sig, p.PID), fmt.Sprintf(`p=%d; b=$(cat /proc/sys/kernel/random/boot_id) || exit 1
s=$(cat /proc/$p/stat 2>/dev/null) || exit %d
set -f; set -- ${s##*\)}
[ "$b:${20}" = %s ] && [ "$1" != Z ] || exit %d
t=$p; [ "$3" != "$p" ] || t=-$p
kill -%s %s 2>/dev/null && exit 0
[ -e /proc/$p ] || exit %d
kill -%s %s
`, p.PID, codeAbsent, quote(p.ID), codeAbsent, sig, to, codeAbsent, sig, to), nil)
	return err
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
