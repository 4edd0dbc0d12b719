package host

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What Linux tells under /proc, parsed the same for the local machine and for text
// that came over SSH. Sources: proc(5), proc_pid_stat(5), proc_net(5).

// tick is the unit of start times: USER_HZ, 100 on every Linux architecture runners meet.
const tick = time.Second / 100

// parseProcess reads /proc/PID/stat and /proc/PID/cmdline. A zombie has ended.
func parseProcess(pid int, stat, cmdline, bootID, procStat string) (Process, error) {
	// The second field is the command in parentheses and may itself hold parentheses and spaces.
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return Process{}, fmt.Errorf("read /proc/%d/stat: no command in %q", pid, stat)
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 20 {
		return Process{}, fmt.Errorf("read /proc/%d/stat: %d fields after the command", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return Process{}, fmt.Errorf("process %d has ended: %w", pid, fs.ErrNotExist)
	}
	start, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("read /proc/%d/stat: start time: %w", pid, err)
	}
	if cmdline == "" { // on its way out, or of the kernel: its name is what is left
		_, cmdline, _ = strings.Cut(stat[:end], "(")
	}
	p := Process{PID: pid, ID: strings.TrimSpace(bootID) + ":" + fields[19], Argv: splitNul(cmdline)}
	if boot, ok := bootTime(procStat); ok {
		p.Started = boot.Add(time.Duration(start) * tick)
	}
	return p, nil
}

func splitNul(s string) []string {
	s = strings.TrimSuffix(s, "\x00")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\x00")
}

func bootTime(procStat string) (time.Time, bool) {
	for line := range strings.Lines(procStat) {
		if v, ok := strings.CutPrefix(line, "btime "); ok {
			s, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Unix(s, 0).UTC(), err == nil
		}
	}
	return time.Time{}, false
}

// parseListeners reads /proc/net/tcp and tcp6, one after the other: the addresses that
// listen on the port, and the inodes of their sockets.
func parseListeners(port int, table string) (addrs, inodes []string) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != "0A" {
			continue
		}
		ip, p, ok := parseHexAddr(f[1])
		if !ok || p != port {
			continue
		}
		addrs = append(addrs, net.JoinHostPort(ip.String(), strconv.Itoa(p)))
		if f[9] != "0" {
			inodes = append(inodes, f[9])
		}
	}
	slices.Sort(addrs)
	return slices.Compact(addrs), inodes
}

// parseHexAddr reads an address of /proc/net/tcp: 32-bit words in the byte order of the machine,
// little-endian on all that are supported.
func parseHexAddr(s string) (net.IP, int, bool) {
	host, portHex, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	port, err2 := strconv.ParseUint(portHex, 16, 16)
	if !ok || err != nil || err2 != nil || len(b)%4 != 0 || len(b) == 0 {
		return nil, 0, false
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	return net.IP(b), int(port), true
}

// parseMounts reads the mount points from /proc/self/mounts.
func parseMounts(s string) []string {
	var mounts []string
	for line := range strings.Lines(s) {
		if f := strings.Fields(line); len(f) > 1 {
			mounts = append(mounts, unescapeMount.Replace(f[1]))
		}
	}
	slices.Sort(mounts)
	return slices.Compact(mounts)
}

var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// parseRotational finds the answer for a device number among the lines "PATH VALUE" of sysfs.
func parseRotational(s string) *bool {
	var r bool
	switch strings.TrimSpace(s) {
	case "0":
	case "1":
		r = true
	default:
		return nil
	}
	return &r
}

// rotationalFiles are where the kernel tells of a device, or of the disk that a partition is on.
func rotationalFiles(dev uint64) []string {
	major := (dev>>8)&0xfff | (dev>>32)&^uint64(0xfff)
	minor := dev&0xff | (dev>>12)&^uint64(0xff)
	if major == 0 {
		return nil // no block device: overlay, tmpfs, a network
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)
	return []string{filepath.Join(dir, "queue/rotational"), dir + "/../queue/rotational"}
}

var versionRE = regexp.MustCompile(`\d+(?:\.\d+)+`)

// versionIn finds the first number with dots.
func versionIn(s string) string { return versionRE.FindString(s) }
