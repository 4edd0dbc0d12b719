package zookeeper_test

import (
	"slices"
	"strings"

	"github.com/go-zookeeper/zk"
)

// scripts are what a client does, and what it must be told by a real server and by the simulated one alike.
var scripts = []struct {
	name string
	do   func(s *stage)
	want []string
}{
	{"create, get, set, delete", func(s *stage) {
		c := s.client()
		p := s.path("/a")
		made, err := c.Create(p, []byte("one"), 0, zk.WorldACL(zk.PermAll))
		s.say("create %v %v", made == p, err)
		_, err = c.Create(p, nil, 0, zk.WorldACL(zk.PermAll))
		s.say("again: %v", err)
		b, st, err := c.Get(p)
		s.say("get %s %s %v", b, short(st), err)
		st, err = c.Set(p, []byte("second"), 0)
		s.say("set %s %v", short(st), err)
		_, err = c.Set(p, []byte("x"), 0)
		s.say("set at the old version: %v", err)
		err = c.Delete(p, 0)
		s.say("delete at the old version: %v", err)
		err = c.Delete(p, 1)
		s.say("delete: %v", err)
		_, _, err = c.Get(p)
		s.say("get: %v", err)
		_, err = c.Set(p, nil, -1)
		s.say("set: %v", err)
		err = c.Delete(p, -1)
		s.say("delete: %v", err)
		ok, st, err := c.Exists(p)
		s.say("exists %v %s %v", ok, short(st), err)
	}, []string{
		"create true <nil>",
		"again: zk: node already exists",
		"get one v0 c0 a0 len3 children0 ephemeral=false changed=false <nil>",
		"set v1 c0 a0 len6 children0 ephemeral=false changed=true <nil>",
		"set at the old version: zk: version conflict",
		"delete at the old version: zk: version conflict",
		"delete: <nil>",
		"get: zk: node does not exist",
		"set: zk: node does not exist",
		"delete: zk: node does not exist",
		"exists false v0 c0 a0 len0 children0 ephemeral=false changed=false <nil>",
	}},
	{"children", func(s *stage) {
		c := s.client()
		_, err := c.Create(s.path("/no/parent"), nil, 0, zk.WorldACL(zk.PermAll))
		s.say("without a parent: %v", err)
		for _, n := range []string{"/b", "/a", "/c", "/b/x"} {
			if _, err := c.Create(s.path(n), nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
				s.Fatal(err)
			}
		}
		s.say("delete with children: %v", c.Delete(s.path("/b"), -1))
		s.say("delete: %v", c.Delete(s.path("/c"), -1))
		names, st, err := c.Children(s.root)
		slices.Sort(names)
		s.say("%q %s %v", names, short(st), err)
		b, st, err := c.Get(s.path("/a"))
		s.say("no data: %q %s %v", b, short(st), err)
		_, _, err = c.Children(s.path("/c"))
		s.say("of none: %v", err)
	}, []string{
		"without a parent: zk: node does not exist",
		"delete with children: zk: node has children",
		"delete: <nil>",
		`["a" "b"] v0 c4 a0 len0 children2 ephemeral=false changed=false <nil>`,
		`no data: "" v0 c0 a0 len0 children0 ephemeral=false changed=false <nil>`,
		"of none: zk: node does not exist",
	}},
	{"names that are none", func(s *stage) {
		c := s.client()
		for _, p := range []string{"/zookeeper", "/"} {
			s.say("delete %s: %v", p, c.Delete(p, -1) != nil)
		}
		_, err := c.Create(s.path("/a\x01"), nil, 0, zk.WorldACL(zk.PermAll))
		s.say("control character: %v", err != nil)
		_, err = c.Create(s.path("/a"), nil, 0, nil)
		s.say("no access list: %v", err)
	}, []string{
		"delete /zookeeper: true",
		"delete /: true",
		"control character: true",
		"no access list: zk: invalid ACL specified",
	}},
	{"sequential", func(s *stage) {
		c := s.client()
		for range 3 {
			p, err := c.Create(s.path("/n-"), nil, zk.FlagSequence, zk.WorldACL(zk.PermAll))
			s.say("%s %v", strings.TrimPrefix(p, s.root), err)
			if err := c.Delete(p, -1); err != nil {
				s.Fatal(err)
			}
		}
	}, []string{"/n-0000000000 <nil>", "/n-0000000001 <nil>", "/n-0000000002 <nil>"}},
	{"ephemeral", func(s *stage) {
		c, other := s.client(), s.client()
		_, err := c.Create(s.path("/e"), []byte("x"), zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
		s.say("create %v", err)
		_, st, err := other.Get(s.path("/e"))
		s.say("owner is its session: %v %v", st.EphemeralOwner == c.SessionID(), err)
		_, err = c.Create(s.path("/e/below"), nil, 0, zk.WorldACL(zk.PermAll))
		s.say("below: %v", err)
		_, _, gone, err := other.ExistsW(s.path("/e"))
		s.say("watch %v", err)
		c.Close()
		e := <-gone
		s.say("%v %v", e.Type, e.Path == s.path("/e"))
		ok, _, err := other.Exists(s.path("/e"))
		s.say("exists %v %v", ok, err)
	}, []string{
		"create <nil>", "owner is its session: true <nil>", "below: zk: ephemeral nodes may not have children", "watch <nil>",
		"EventNodeDeleted true", "exists false <nil>",
	}},
	{"a lost connection keeps the session", func(s *stage) {
		c := s.client()
		if _, err := c.Create(s.path("/e"), nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll)); err != nil {
			s.Fatal(err)
		}
		id := c.SessionID()
		(*c.conns)[0].Close()
		c.await(s, zk.StateHasSession)
		s.say("same session: %v", c.SessionID() == id)
		ok, _, err := c.Exists(s.path("/e"))
		s.say("exists %v %v", ok, err)
	}, []string{"same session: true", "exists true <nil>"}},
	{"watches set again after a lost connection", func(s *stage) {
		c := s.client()
		if _, err := c.Create(s.path("/there"), nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
			s.Fatal(err)
		}
		// By hand: go-zookeeper's own way has a race.
		raw := rawSession(s.T, s.addr)
		for _, e := range raw.setWatches(s.T, 0, s.path("/there"), s.path("/gone")) {
			s.say("missed: %s", strings.ReplaceAll(e, s.root, ""))
		}
		const future = 1 << 60
		s.say("missed: %q", raw.setWatches(s.T, future, s.path("/there"), s.path("/there")))
		if _, err := c.Set(s.path("/there"), nil, -1); err != nil {
			s.Fatal(err)
		}
		s.say("%s", strings.ReplaceAll(raw.event(s.T), s.root, ""))
		if _, err := c.Create(s.path("/there/below"), nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
			s.Fatal(err)
		}
		s.say("%s", strings.ReplaceAll(raw.event(s.T), s.root, ""))
	}, []string{
		"missed: EventNodeDataChanged /there", "missed: EventNodeDeleted /gone", `missed: []`, "EventNodeDataChanged /there", "EventNodeChildrenChanged /there",
	}},
	{"watches fire once", func(s *stage) {
		c, other := s.client(), s.client()
		for _, n := range []string{"/w", "/w/x"} {
			if _, err := other.Create(s.path(n), nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
				s.Fatal(err)
			}
		}
		_, _, data, _ := c.GetW(s.path("/w"))
		_, _, children, _ := c.ChildrenW(s.path("/w"))
		_, _, made, _ := c.ExistsW(s.path("/later"))
		for range 2 {
			if _, err := other.Set(s.path("/w"), []byte("1"), -1); err != nil {
				s.Fatal(err)
			}
		}
		s.say("%v", (<-data).Type)
		if _, err := other.Create(s.path("/w/y"), nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
			s.Fatal(err)
		}
		s.say("%v", (<-children).Type)
		if _, err := other.Create(s.path("/later"), nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
			s.Fatal(err)
		}
		s.say("%v", (<-made).Type)
		_, _, data, _ = c.GetW(s.path("/w/x"))
		_, _, children, _ = c.ChildrenW(s.path("/w/x"))
		if err := other.Delete(s.path("/w/x"), -1); err != nil {
			s.Fatal(err)
		}
		s.say("%v %v", (<-data).Type, (<-children).Type)
	}, []string{"EventNodeDataChanged", "EventNodeChildrenChanged", "EventNodeCreated", "EventNodeDeleted EventNodeDeleted"}},
	{"multi", func(s *stage) {
		c := s.client()
		res, err := c.Multi(
			&zk.CreateRequest{Path: s.path("/m"), Data: []byte("1"), Acl: zk.WorldACL(zk.PermAll)},
			&zk.SetDataRequest{Path: s.path("/m"), Data: []byte("22"), Version: 0},
			&zk.CheckVersionRequest{Path: s.path("/m"), Version: 1},
		)
		s.say("%v, %v, %s", err, len(res), short(res[1].Stat))
		res, err = c.Multi(
			&zk.SetDataRequest{Path: s.path("/m"), Data: []byte("333"), Version: 1},
			&zk.DeleteRequest{Path: s.path("/none"), Version: -1},
			&zk.DeleteRequest{Path: s.path("/m"), Version: -1},
		)
		s.say("%v", err)
		for _, r := range res {
			s.say("part: %v", r.Error)
		}
		b, st, err := c.Get(s.path("/m"))
		s.say("%s %s %v", b, short(st), err)
	}, []string{
		"<nil>, 3, v1 c0 a0 len2 children0 ephemeral=false changed=false",
		"zk: node does not exist",
		"part: <nil>", "part: zk: node does not exist", "part: unknown error: -2",
		"22 v1 c0 a0 len2 children0 ephemeral=false changed=false <nil>",
	}},
	{"access lists", func(s *stage) {
		c, other := s.client(), s.client()
		if err := c.AddAuth("digest", []byte("user:secret")); err != nil {
			s.Fatal(err)
		}
		_, err := c.Create(s.path("/mine"), []byte("x"), 0, zk.AuthACL(zk.PermAll))
		s.say("create %v", err)
		acl, _, err := c.GetACL(s.path("/mine"))
		s.say("%v %v", acl, err)
		_, _, err = other.Get(s.path("/mine"))
		s.say("get by another: %v", err)
		_, err = other.Set(s.path("/mine"), nil, -1)
		s.say("set by another: %v", err)
		_, err = other.Create(s.path("/mine/x"), nil, 0, zk.WorldACL(zk.PermAll))
		s.say("create by another: %v", err)
		_, err = other.Create(s.path("/auth"), nil, 0, zk.AuthACL(zk.PermAll))
		s.say("auth without having shown any: %v", err)
		if err := other.AddAuth("digest", []byte("user:secret")); err != nil {
			s.Fatal(err)
		}
		b, _, err := other.Get(s.path("/mine"))
		s.say("get: %s %v", b, err)
		st, err := c.SetACL(s.path("/mine"), zk.WorldACL(zk.PermRead), 0)
		s.say("%s %v", short(st), err)
		_, err = c.Set(s.path("/mine"), nil, -1)
		s.say("set: %v", err)
		s.say("deleting is the parent's: %v", c.Delete(s.path("/mine"), -1))
	}, []string{
		"create <nil>",
		"[{31 digest user:5w9W4eL3797Y4Wq8AcKUPPk8ha4=}] <nil>",
		"get by another: zk: not authenticated",
		"set by another: zk: not authenticated",
		"create by another: zk: not authenticated",
		"auth without having shown any: zk: invalid ACL specified",
		"get: x <nil>",
		"v0 c0 a1 len1 children0 ephemeral=false changed=false <nil>",
		"set: zk: not authenticated",
		"deleting is the parent's: <nil>",
	}},
	{"sync", func(s *stage) {
		p, err := s.client().Sync(s.root)
		s.say("%v %v", p == s.root, err)
	}, []string{"true <nil>"}},
	{"the root of a fresh server", func(s *stage) {
		c := s.client()
		_, st, err := c.Get("/zookeeper")
		s.say("%s %v", short(st), err)
		names, _, err := c.Children("/zookeeper")
		slices.Sort(names)
		s.say("%q %v", names, err)
	}, []string{"v0 c-2 a0 len0 children2 ephemeral=false changed=false <nil>", `["config" "quota"] <nil>`}},
	{"four-letter words", func(s *stage) {
		s.say("%q", s.word("ruok"))
		s.say("%q", fields(s.word("srvr")))
		s.say("%q", fields(s.word("stat")))
	}, []string{
		`"imok"`,
		`["Zookeeper version" "Latency min/avg/max" "Received" "Sent" "Connections" "Outstanding" "Zxid" "Mode: standalone" "Node count"]`,
		`["Zookeeper version" "Clients" " /127.0.0.1" "Latency min/avg/max" "Received" "Sent" "Connections" "Outstanding" "Zxid" "Mode: standalone" "Node count"]`,
	}},
}
