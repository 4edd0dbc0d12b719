package pika

// ports are those an instance needs beside its own, which releases number differently.
type ports struct {
	binlog    int  // takes the binlog: a server of its own up to 3.0, the replication server from 3.1 on
	heartbeat int  // up to 3.0; 0: the release has none
	hub       int  // 2.3; 0: none
	rsync     int  // the rsync daemon that takes full syncs
	rsync2    int  // the built-in one of 3.5 and later; 0: none
	atStart   bool // the rsync daemon runs from the start, and the server does not start without it
}

// portsOf gives the ports of an instance by its own port.
func portsOf(r Release, port int) ports {
	if r.atLeast(3, 1, 0) {
		p := ports{binlog: port + 2000, rsync: port + 1000, atStart: true}
		if r.atLeast(3, 5, 0) {
			p.rsync2 = port + 10001
		}
		return p
	}
	p := ports{binlog: port + 1000, heartbeat: port + 2000, rsync: port + 3000}
	if r.between([3]int{2, 3, 0}, [3]int{3, 0, 0}) {
		p.hub = port + 1100
	}
	return p
}

// purpose is one port and what it is for.
type purpose struct {
	port int
	what string
}

// all lists the ports, the rsync port last.
func (p ports) all() []purpose {
	var list []purpose
	for _, it := range [...]purpose{{p.binlog, "binlog"}, {p.heartbeat, "heartbeat"}, {p.hub, "hub"}, {p.rsync2, "rsync2"}, {p.rsync, "rsync"}} {
		if it.port != 0 {
			list = append(list, it)
		}
	}
	return list
}
