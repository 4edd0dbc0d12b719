package redis

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

type replicaOfIn struct {
	Master     schema.Endpoint `yaml:"master" doc:"Master to follow: a target's name, or IP:port. A target's host name is resolved by the runner, and the address is sent."`
	None       bool            `yaml:"none" doc:"Follow nobody: become a master and keep the data." default:"false"`
	AllowEmpty bool            `yaml:"allow_empty_master" doc:"Follow a master without keys, although this server has some: they will be gone." default:"false"`
}

type replicaOfOut struct {
	Role       string `yaml:"role" doc:"master or slave, in the server's word."`
	MasterAddr string `yaml:"master_addr" doc:"host:port of the master followed; empty on a master."`
}

// following is what undoing needs: whom the server followed; empty: nobody.
type following struct {
	Master string `json:"master"`
}

func replicaOf() *steps.Kind[replicaOfIn, replicaOfOut] {
	return &steps.Kind[replicaOfIn, replicaOfOut]{
		Name:       "redis.replicaof",
		Doc:        "Makes a server the replica of another, or with none: true a master. Sends REPLICAOF (SLAVEOF where the server is older than 5.0). It does not wait until the replica has caught up: that is what redis.info with wait-until is for.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: follow, uses: redis.replicaof, target: redis2, with: {master: "127.0.0.1:6379"}}`,
		Pitfalls: []string{
			"A full sync replaces all data of the new replica: a master without keys (one that came back empty) is refused unless allow_empty_master is given. Undo brings the old role back, never the old data.",
			"A replica of a master with a password needs masterauth in its own configuration; without it the link stays down with no error to anybody. The check compares it, and changes nothing.",
			"A server is never made a replica of itself or of its own replica; this is told by the servers' run ids, not by their addresses.",
			"A loopback address means another machine to another machine: it is refused for a replica whose own address is not loopback.",
			"Promoting a replica while clients still write to the old master splits the data: pause the writes and wait for lag 0 first.",
		},
		Valid: func(in replicaOfIn, unknown func(string) bool) []steps.Problem {
			if unknown("master") || unknown("none") || (in.Master != "") != in.None {
				return nil
			}
			return []steps.Problem{{Message: "exactly one of master and none: true is wanted"}}
		},
		Check:    checkReplicaOf,
		Plan:     planReplicaOf,
		Probe:    probeReplicaOf,
		Apply:    applyReplicaOf,
		Undo:     undoReplicaOf,
		UndoPlan: func(replicaOfIn) string { return "REPLICAOF the master before, or NO ONE" },
	}
}

// wanted is the master to follow: an address to send, and those that mean the same.
type wanted struct {
	addr  string // IP:port; empty: none
	names []string
	pass  *schema.Secret // what the master's target logs in with; nil: it is no target
}

func (w wanted) means(addr string) bool {
	return addr == w.addr || slices.Contains(w.names, addr)
}

func (w wanted) command() []string {
	if w.addr == "" {
		return []string{"REPLICAOF", "NO", "ONE"}
	}
	host, port, _ := net.SplitHostPort(w.addr)
	return []string{"REPLICAOF", host, port}
}

// resolve finds the master meant. A host name is looked up here, because what the replica
// would make of it, now and after a restart, nobody can see in a plan.
func (in replicaOfIn) resolve(ctx context.Context, v steps.View) (wanted, error) {
	if in.None {
		return wanted{}, nil
	}
	addr := string(in.Master)
	var w wanted
	if t, err := v.Target(addr); err == nil {
		if t.Kind != KindName {
			return w, steps.Precondition("master %s is of kind %s, not redis", t.Name, t.Kind)
		}
		addr = t.Addr()
		c, err := view(ctx, v, t.Name)
		if err != nil {
			return w, err
		}
		pass := c.Password()
		w.pass = &pass
	} else if !strings.Contains(addr, ":") {
		return w, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return w, steps.Errorf("address", "master %s: %w", addr, err)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		w.addr = net.JoinHostPort(ip.Unmap().String(), port)
		return w, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return w, &steps.Error{Kind: "address", Temporary: true, Err: fmt.Errorf("master %s: %w", addr, err)}
	}
	slices.SortStableFunc(ips, func(a, b netip.Addr) int { // IPv4 first, as more servers listen on it
		switch {
		case a.Unmap().Is4() == b.Unmap().Is4():
			return a.Compare(b)
		case a.Unmap().Is4():
			return -1
		}
		return 1
	})
	w.addr, w.names = net.JoinHostPort(ips[0].Unmap().String(), port), []string{addr}
	for _, ip := range ips {
		w.names = append(w.names, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return w, nil
}

func checkReplicaOf(ctx context.Context, v steps.View, in replicaOfIn) error {
	c, err := view(ctx, v, "")
	if err != nil {
		return err
	}
	me, err := c.Info(ctx)
	if err != nil || in.None {
		return err
	}
	w, err := in.resolve(ctx, v)
	if err != nil {
		return err
	}
	if isLoopback(w.addr) && !isLoopback(c.Addr()) {
		return steps.Precondition("make %s a replica of %s: a loopback address means another machine there", c.Addr(), w.addr).
			WithHint("give the master's address as the replica reaches it")
	}
	if me.Mode == "cluster" {
		return steps.Precondition("make %s a replica of %s: it is a node of a Redis Cluster, which has CLUSTER REPLICATE for this", c.Addr(), w.addr)
	}
	master, err := masterClient(ctx, v, c, in, w)
	if err != nil {
		return err
	}
	defer func() { _ = master.Close() }()
	m, err := master.Info(ctx)
	if err != nil {
		return err
	}
	if err := noCycle(ctx, c, me, master, m); err != nil {
		return err
	}
	if me.Role == "master" && me.Keys > 0 && m.Keys == 0 && !in.AllowEmpty {
		return steps.Precondition("make %s a replica of %s: the master has no keys, and the %d of the replica would be gone", c.Addr(), w.addr, me.Keys).
			WithHint("is it the right master, and has it loaded its data? allow_empty_master: true goes on")
	}
	return checkMasterAuth(ctx, c, master, w)
}

// masterClient gives a client for the master that the caller may close: with the credentials
// of the master's target, or those of the replica's where the master is only an address.
func masterClient(ctx context.Context, v steps.View, c *Client, in replicaOfIn, w wanted) (*Client, error) {
	if w.pass == nil {
		return c.Beside(w.addr), nil
	}
	m, err := view(ctx, v, string(in.Master))
	if err != nil {
		return nil, err
	}
	return m.Beside(m.Addr()), nil
}

// noCycle walks up from the wanted master and refuses to find this server there.
func noCycle(ctx context.Context, c *Client, me Info, master *Client, m Info) error {
	const longestChain = 16
	path := master.Addr()
	for range longestChain {
		if m.RunID != "" && m.RunID == me.RunID {
			return steps.Precondition("make %s a replica of %s: that is itself, or follows it (%s)", c.Addr(), master.Addr(), path)
		}
		if m.Master == "" {
			return nil
		}
		path += " follows " + m.Master
		up := c.Beside(m.Master)
		next, err := up.Info(ctx)
		_ = up.Close()
		if err != nil {
			if sameHostPort(m.Master, c.Addr()) {
				return steps.Precondition("make %s a replica of %s: that follows it (%s)", c.Addr(), master.Addr(), path)
			}
			return fmt.Errorf("look for a cycle of replication (%s): %w", path, err)
		}
		m = next
	}
	return steps.Precondition("make %s a replica of %s: the chain of masters does not end (%s)", c.Addr(), master.Addr(), path)
}

func sameHostPort(a, b string) bool { return strings.EqualFold(a, b) }

// checkMasterAuth tells what would keep the link down: a password the replica does not send.
func checkMasterAuth(ctx context.Context, c, master *Client, w wanted) error {
	required, known, err := master.setting(ctx, "requirepass")
	if err != nil || !known { // CONFIG may be renamed or forbidden: then nothing can be told
		return ignoreAnswered(err)
	}
	sends, known, err := c.setting(ctx, "masterauth")
	if err != nil || !known {
		return ignoreAnswered(err)
	}
	const hint = "set masterauth with redis.config-set (rewrite: true) before this step"
	switch {
	case required == "" || sends == required:
		return nil
	case sends == "":
		return steps.Precondition("make %s a replica of %s: the master has a password, and the replica has no masterauth", c.Addr(), w.addr).WithHint(hint)
	}
	user, known, err := c.setting(ctx, "masteruser")
	if err != nil || (known && user != "") { // a user of the master's ACL has a password of its own
		return ignoreAnswered(err)
	}
	return steps.Precondition("make %s a replica of %s: the replica's masterauth is not the master's password", c.Addr(), w.addr).WithHint(hint)
}

func ignoreAnswered(err error) error {
	if _, ok := Answered(err); ok {
		return nil
	}
	return err
}

func planReplicaOf(ctx context.Context, v *steps.View, in replicaOfIn) (steps.Change, error) {
	if v == nil {
		cmd := "REPLICAOF NO ONE"
		if !in.None {
			cmd = "REPLICAOF " + strings.Replace(string(in.Master), ":", " ", 1)
		}
		return steps.Change{Lines: []steps.Line{{Command: cmd, To: in.words()}}}, nil
	}
	c, err := view(ctx, *v, "")
	if err != nil {
		return steps.Change{}, err
	}
	i, err := c.Info(ctx)
	if err != nil {
		return steps.Change{}, err
	}
	w, err := in.resolve(ctx, *v)
	if err != nil {
		return steps.Change{}, err
	}
	line := steps.Line{Target: own(v), Command: Line(w.command()), From: describe(i), To: in.words(), Keys: i.atStake()}
	return steps.Change{Lines: []steps.Line{line}, Before: following{Master: i.Master}}, nil
}

func (in replicaOfIn) words() string {
	if in.None {
		return "master"
	}
	return "replica of " + string(in.Master)
}

func describe(i Info) string {
	if i.Master != "" {
		return "replica of " + i.Master
	}
	return i.Role
}

// atStake are the keys of a server that holds them by itself; a replica's are its master's.
func (i Info) atStake() *int64 {
	if i.Master != "" {
		return nil
	}
	keys := i.Keys
	return &keys
}

func probeReplicaOf(ctx context.Context, v steps.View, in replicaOfIn) (steps.State, replicaOfOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return steps.Unclear, replicaOfOut{}, err
	}
	w, err := in.resolve(ctx, v)
	if err != nil {
		return steps.Unclear, replicaOfOut{}, err
	}
	i, err := c.Info(ctx, "replication")
	if err != nil {
		return steps.Unclear, replicaOfOut{}, err
	}
	if in.None && i.Role == "master" || !in.None && i.Role == "slave" && w.means(i.Master) {
		return steps.Done, replicaOfOut{Role: i.Role, MasterAddr: i.Master}, nil
	}
	return steps.Untouched, replicaOfOut{}, nil
}

func applyReplicaOf(ctx context.Context, s steps.Session, in replicaOfIn) (replicaOfOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return replicaOfOut{}, err
	}
	w, err := in.resolve(ctx, s.View)
	if err != nil {
		return replicaOfOut{}, err
	}
	if err := c.follow(ctx, w.command()); err != nil {
		return replicaOfOut{}, err
	}
	i, err := c.Info(ctx, "replication")
	return replicaOfOut{Role: i.Role, MasterAddr: i.Master}, err
}

// follow sends REPLICAOF, or its old name where the server does not know that one.
func (c *Client) follow(ctx context.Context, cmd []string) error {
	_, err := c.Do(ctx, cmd...)
	if unsupported(err) {
		_, err = c.Do(ctx, append([]string{"SLAVEOF"}, cmd[1:]...)...)
	}
	return err
}

func undoReplicaOf(ctx context.Context, s steps.Session, in replicaOfIn, _ *replicaOfOut) error {
	var before following
	has, err := s.Before(&before)
	if err != nil {
		return err
	}
	state, _, err := probeReplicaOf(ctx, s.View, in)
	if err != nil {
		return err
	}
	c, err := session(ctx, s)
	if err != nil {
		return err
	}
	i, err := c.Info(ctx, "replication")
	switch {
	case err != nil:
		return err
	case has && i.Master == before.Master:
		return nil
	case !has:
		return steps.Errorf("precondition", "put the master of %s back: whom it followed before is not known", c.Addr())
	case state != steps.Done:
		return steps.Errorf("conflict", "put the master of %s back: it is %s now, which this step did not make it", c.Addr(), describe(i)).
			WithHint("somebody else has changed it; decide by hand")
	case before.Master == "":
		return c.follow(ctx, []string{"REPLICAOF", "NO", "ONE"})
	}
	host, port, err := net.SplitHostPort(before.Master)
	if err != nil {
		return steps.Errorf("precondition", "put the master of %s back: %w", c.Addr(), err)
	}
	return c.follow(ctx, []string{"REPLICAOF", host, port})
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
