package pika

import (
	"context"
	"net"
	"strconv"
	"strings"

	"runbook/steps"
)

// Info is what INFO tells, typed. A field that the server does not show has its zero value, a pointer is nil.
type Info struct {
	Release      Release
	PID          int64  // process_id
	Config       string // config_file
	ServerID     int64
	Role         string // master, slave, both (a slave with replicas of its own), double_master
	Master       string // ip:port a slave follows; of a double master its peer
	Link         string // up, down; empty where it follows nobody
	ReadOnly     *bool  // slave_read_only
	State        string // of replication as a follower, in the names of slots (StateConnected); empty: not shown
	StateCode    *int64 // repl_state as 2.x and 3.0 number it; later releases show none
	Offset       *Offset
	Replicas     []InfoReplica
	Connected    int64 // connected_slaves
	DBSize       int64 // bytes of data on disk
	LogSize      int64 // bytes of binlog on disk
	DoubleMaster *DoubleMaster
	Scanning     bool // the key space is being counted
	Saving       bool // a bgsave, also one for a full sync, is under way
	Keyspace     *Keyspace
	// Fields has every line that has a name and a value: int64, float64, string, or a map of these where the server
	// writes name=value,name=value.
	Fields map[string]any
}

// InfoReplica is a replica as its master shows it in INFO.
type InfoReplica struct {
	Addr  string `yaml:"addr" doc:"Address of the replica, IP:port."`
	State string `yaml:"state" doc:"online or offline, in the word of releases up to 3.0; empty where the server shows none."`
	Lag   *int64 `yaml:"lag" doc:"Bytes of the binlog that it has not got; null where the server shows none, as it does of a replica that is not syncing. Releases up to 3.0 count what was not sent yet, later ones what was not acknowledged." min:"0"`
}

// DoubleMaster is how a 2.3 server stands with its peer.
type DoubleMaster struct {
	Peer     string `yaml:"peer" doc:"Address of the peer, IP:port, as configured."`
	ServerID int64  `yaml:"server_id" doc:"The peer's server id, as configured here."`
	State    string `yaml:"state" doc:"State of replication from the peer, in the names of repl_state_name."`
	Code     int64  `yaml:"repl_state" doc:"The same as the server numbers it."`
	Active   bool   `yaml:"active" doc:"The server is in double-master mode: false after the link was given up (one side has lost its binlog), when both take writes and diverge."`
	Received string `yaml:"received" doc:"Place in the peer's binlog up to which it has come: file and offset."`
}

// oldStates names the numbers of repl_state of releases up to 3.0 as slots name theirs. Those after it
// number the same states otherwise: 3 is connected there, and waiting for a full sync later.
var oldStates = [...]string{StateNoConnect, StateTryConnect, StateWaitReply, StateConnected, StateWaitDBSync, StateError}

// newStates are the names of releases since 3.1, by their numbers.
var newStates = [...]string{StateNoConnect, StateTryConnect, StateTryDBSync, StateWaitDBSync, StateWaitReply, StateConnected, StateError, "kDBNoConnect"}

// StateName gives a numbered repl_state its name. The zero Release is taken for an old one, because only old ones show numbers.
func StateName(r Release, code int64) string {
	names := oldStates[:]
	if r.atLeast(3, 1, 0) {
		names = newStates[:]
	}
	if code < 0 || code >= int64(len(names)) {
		return "unknown state " + strconv.FormatInt(code, 10)
	}
	return names[code]
}

// ParseInfo reads the answer to INFO, of any release and section. What is no line of a known form is left out.
func ParseInfo(text string) Info {
	i := Info{Fields: map[string]any{}}
	section := ""
	var double DoubleMaster
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if title, ok := strings.CutPrefix(line, "# "); ok && !strings.HasPrefix(title, "Time:") && !strings.HasPrefix(title, "Duration:") {
			section, _, _ = strings.Cut(title, "(")
			continue
		}
		switch section {
		case "Keyspace":
			i.readKeyspace(line)
		case "DoubleMaster":
			double.read(line)
		case "Command_Exec_Count": // names of commands, which are not fields
		default:
			i.readLine(line)
		}
	}
	if i.StateCode != nil {
		i.State = StateName(i.Release, *i.StateCode)
	}
	if double.Peer != "" {
		double.State = StateName(i.Release, double.Code)
		i.DoubleMaster = &double
	}
	return i
}

func (i *Info) readLine(line string) {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		if _, offset, ok := strings.Cut(line, " binlog_offset="); ok { // "db0 binlog_offset=0 7209770,safety_purge=none"
			offset, _, _ = strings.Cut(offset, ",")
			i.offset(offset)
		}
		return
	}
	value = strings.TrimSpace(value)
	field := typed(name, value)
	i.Fields[name] = field
	number, _ := field.(int64)
	switch name {
	case "pika_version":
		i.Release, _ = ParseRelease(value)
	case "process_id":
		i.PID = number
	case "config_file":
		i.Config = value
	case "server_id":
		i.ServerID = number
	case "db_size":
		i.DBSize = number
	case "log_size":
		i.LogSize = number
	case "binlog_offset":
		i.offset(value)
	case "is_scaning_keyspace":
		i.Scanning = strings.HasPrefix(value, "Yes")
	case "is_bgsaving":
		i.Saving = strings.HasPrefix(value, "Yes")
	default:
		i.readReplication(name, value, field)
	}
}

func (i *Info) readReplication(name, value string, field any) {
	number, isNumber := field.(int64)
	switch name {
	case "role":
		if i.Role = value; value == "master&&slave" {
			i.Role = "both"
		}
	case "connected_slaves":
		i.Connected = number
	case "master_host":
		i.Master = value
	case "master_port":
		i.Master = net.JoinHostPort(i.Master, value)
	case "master_link_status":
		if i.Link = value; value == "up" && i.StateCode == nil {
			i.State = StateConnected // later releases name the state only while it is another
		}
	case "slave_read_only":
		if isNumber {
			readOnly := number != 0
			i.ReadOnly = &readOnly
		}
	case "repl_state":
		if isNumber {
			i.StateCode = &number
		}
	case "db_repl_state":
		i.State = worstState(value)
	default:
		if digits, ok := strings.CutPrefix(name, "slave"); ok && digits != "" && strings.Trim(digits, "0123456789") == "" {
			i.Replicas = append(i.Replicas, infoReplica(value))
		}
	}
}

func (i *Info) offset(text string) {
	if o, err := parseOffset(text); err == nil {
		i.Offset = &o
	}
}

// worstState reads "(db0:kTryConnect)(db1:Error)": the state of the first database that is in error, or else of the first.
func worstState(value string) string {
	worst := ""
	for part := range strings.SplitSeq(value, "(") {
		_, state, ok := strings.Cut(strings.TrimRight(part, ") "), ":")
		if !ok {
			continue
		}
		if state = strings.TrimSpace(state); !strings.HasPrefix(state, "k") {
			state = "k" + state
		}
		if worst == "" || state == StateError {
			worst = state
		}
	}
	return worst
}

// infoReplica reads "ip=127.0.0.1,port=21132,conn_fd=81,lag=(db0:0)", with all that a release adds or leaves out.
func infoReplica(value string) InfoReplica {
	var r InfoReplica
	ip, port := "", ""
	list, lag, hasLag := strings.Cut(value, ",lag=")
	for part := range strings.SplitSeq(list, ",") {
		switch name, v, _ := strings.Cut(part, "="); name {
		case "ip":
			ip = v
		case "port":
			port = v
		case "state":
			r.State = v
		}
	}
	r.Addr = net.JoinHostPort(ip, port)
	if hasLag {
		r.Lag = infoLag(lag)
	}
	return r
}

// infoLag reads "0", or "(db0:0)(db1:77)": the largest, and nil where one is no number ("not syncing").
func infoLag(text string) *int64 {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return &n
	}
	var most *int64
	for part := range strings.SplitSeq(text, "(") {
		_, v, ok := strings.Cut(strings.TrimRight(part, ") "), ":")
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		if err != nil {
			return nil
		}
		if most == nil || n > *most {
			most = &n
		}
	}
	return most
}

// read takes one line of the section DoubleMaster. One that is configured for nobody has the port 0.
func (d *DoubleMaster) read(line string) {
	name, value, _ := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	number, _ := strconv.ParseInt(value, 10, 64)
	switch name {
	case "the peer-master host":
		d.Peer = value
	case "the peer-master port":
		if d.Peer != "" && number != 0 {
			d.Peer = net.JoinHostPort(d.Peer, value)
		} else {
			d.Peer = ""
		}
	case "the peer-master server_id":
		d.ServerID = number
	case "double_master_mode":
		d.Active = strings.EqualFold(value, "true")
	case "repl_state":
		d.Code = number
	case "double_master_recv_info": // "filenum 0 offset 598962"
		if f := strings.Fields(value); len(f) == 4 {
			d.Received = f[1] + " " + f[3]
		}
	}
}

// typed gives a value the type that it always has: what only looks like a number in one run (a version, a hash) is a text in every run.
func typed(name, value string) any {
	for _, suffix := range [...]string{"_version", "_sha", "_host", "_human", "_file", "_date"} {
		if strings.HasSuffix(name, suffix) {
			return value
		}
	}
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return n
	}
	if strings.Contains(value, ".") && strings.Trim(value, "0123456789.") == "" {
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			return f
		}
	}
	if !strings.Contains(value, "=") {
		return value
	}
	m := map[string]any{}
	for part := range strings.SplitSeq(value, ",") {
		k, v, ok := strings.Cut(part, "=")
		if !ok || k == "" {
			return value
		}
		m[k] = v
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			m[k] = n
		}
	}
	return m
}

// Info asks for INFO: its default sections, or the one named. A section that the release does not have is an error.
func (c *Client) Info(ctx context.Context, section ...string) (Info, error) {
	text, err := c.text(ctx, append([]string{"INFO"}, section...)...)
	if err != nil {
		return Info{}, err
	}
	if strings.TrimSpace(text) == "" {
		return Info{}, steps.Errorf("reply", "info %s on %s: the answer is empty", strings.Join(section, " "), c.Addr())
	}
	return ParseInfo(text), nil
}
