package pika

import (
	"slices"
	"strings"
	"testing"

	"runbook/schema"
)

func release(t *testing.T, text string) Release {
	t.Helper()
	r, err := ParseRelease(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestParseRelease(t *testing.T) {
	for text, want := range map[string]Release{"3.4.0": {3, 4, 0, "3.4.0"}, "v2.3.6": {2, 3, 6, "v2.3.6"}, "3.5.0-alpha": {3, 5, 0, "3.5.0-alpha"}} {
		if got, err := ParseRelease(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "3", "3.4", "x.y.z", "3..0"} {
		if got, err := ParseRelease(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

// The version tables: what Codis can do with a source of this release, and what it does besides.
func TestReleaseTable(t *testing.T) {
	for _, c := range []struct {
		release, mode   string
		sync, semiAsync bool
		problems        string // some of the names
	}{
		{"2.1.4", Classic, false, false, "no-sync-migration no-semi-async-migration"},
		{"2.2.0", Classic, true, false, "no-semi-async-migration lists-reversed keys-lower-cased"},
		{"2.3.0", Classic, true, false, "no-semi-async-migration lists-reversed tags-ignored cannot-be-upgraded-by-replication"},
		{"2.3.2", Classic, true, true, "lists-reversed"},
		{"2.3.6", Classic, true, true, "lists-reversed errors-ignored keys-dropped-from-index keys-lower-cased tags-ignored empty-strings-stay scores-rounded replicas-keep-keys rsync-fails-for-good repeated-slaveof"},
		{"3.0.16", Classic, false, false, "no-slots-no-geo"},
		{"3.2.9", Sharding, false, true, "no-transactions finished-proves-nothing repeated-slaveof"},
		{"3.3.6", Sharding, false, true, "sentinel finished-proves-nothing"},
		{"3.4.0", Sharding, false, true, "finished-proves-nothing no-transactions"},
		{"3.4.0", Classic, false, false, "no-sync-migration no-semi-async-migration"},
		{"3.5.3", Classic, true, true, "parallel-migration-hangs keys-lower-cased scores-rounded"},
		{"4.0.1", Classic, true, true, "wrapper-refuses keys-lower-cased"},
		{"9.0.0", Classic, false, false, "release-not-known"},
	} {
		p := nature{release: release(t, c.release), mode: c.mode}.known()
		if got := !blocked(p, "codis-sync"); got != c.sync {
			t.Errorf("%s %s: sync %v", c.release, c.mode, got)
		}
		if got := !blocked(p, "codis-semi-async"); got != c.semiAsync {
			t.Errorf("%s %s: semi-async %v", c.release, c.mode, got)
		}
		for _, name := range strings.Fields(c.problems) {
			if !slices.ContainsFunc(p, func(p Problem) bool { return p.Name == name }) {
				t.Errorf("%s %s: %s is not told", c.release, c.mode, name)
			}
		}
		if c.release == "3.4.0" && slices.ContainsFunc(p, func(p Problem) bool { return p.Name == "sentinel" }) {
			t.Errorf("3.4.0 is told what is of 3.3: %v", p)
		}
	}
}

// Every problem says what is so and what to do.
func TestProblemsAreWhole(t *testing.T) {
	for _, n := range notes {
		p := n.Problem
		if p.Name == "" || p.Message == "" || p.Fix == "" || !slices.Contains([]string{"replication", "codis-sync", "codis-semi-async", "use"}, p.About) {
			t.Errorf("%+v", p)
		}
	}
}

func TestReplicates(t *testing.T) {
	for _, c := range []struct {
		a, b string
		can  bool
	}{
		{"2.3.0", "2.3.2", true}, {"2.3.6", "2.3.3", true}, {"2.3.2", "2.3.3", false}, {"2.3.6", "3.4.0", false}, {"2.3.6", "3.0.16", false},
		{"3.2.9", "3.4.0", true}, {"3.4.0", "3.5.5", false}, {"4.0.0", "4.0.1", true}, {"9.0.0", "9.0.0", false},
	} {
		for _, pair := range [][2]string{{c.a, c.b}, {c.b, c.a}} {
			if got := replicates(release(t, pair[0]), release(t, pair[1])) == nil; got != c.can {
				t.Errorf("%v: %v", pair, got)
			}
		}
	}
	if p := replicates(Release{}, release(t, "3.4.0")); p == nil || p.Name != "release-unknown" {
		t.Errorf("a release that nobody knows: %+v", p)
	}
}

func TestDoubleMasterIDs(t *testing.T) {
	a := nature{addr: "a:1", serverID: 1, double: &DoubleMaster{Peer: "b:1", ServerID: 2}}
	b := nature{addr: "b:1", serverID: 2, double: &DoubleMaster{Peer: "a:1", ServerID: 1}}
	if p := a.doubleMaster(b); p != nil {
		t.Errorf("right ids: %v", p)
	}
	wrong := a
	wrong.double = &DoubleMaster{Peer: "b:1", ServerID: 7}
	same := b
	same.serverID, same.double = 1, nil
	own := a
	own.double = &DoubleMaster{Peer: "b:1", ServerID: 1}
	for what, p := range map[string][]Problem{"a wrong id": wrong.doubleMaster(b), "one id for both": own.doubleMaster(same)} {
		if len(p) != 1 || p[0].Name != "double-master-ids" || !p[0].Blocks {
			t.Errorf("%s: %v", what, p)
		}
	}
}

func TestCheckRelease(t *testing.T) {
	b := simulated()
	a, o := b.start(t, options{slots: "0"}), b.start(t, options{slots: "0"})
	classic, secret := b.start(t, options{mode: Classic}), b.start(t, options{pass: password, auth: "another"})
	names := map[string]*server{"o": o, "classic": classic, "secret": secret}
	for peer, want := range map[string]string{"o": "", "classic": "modes-differ", "secret": "secrets-differ"} {
		out, err := readCheckRelease(t.Context(), looking(t, a, names), checkReleaseIn{Peer: schema.TargetName(peer)})
		if err != nil || out.CanReplicate == nil || *out.CanReplicate != (want == "") {
			t.Errorf("%s: %+v, %v", peer, out, err)
		}
		if want != "" && !slices.ContainsFunc(out.Reasons, func(p Problem) bool { return p.Name == want && p.Fix != "" }) {
			t.Errorf("%s: %v does not tell %s", peer, out.Reasons, want)
		}
	}
	out, err := readCheckRelease(t.Context(), looking(t, a, nil), checkReleaseIn{})
	if err != nil || out.CanReplicate != nil || out.CanSemiAsync || !slices.ContainsFunc(out.Reasons, func(p Problem) bool { return p.Name == "slot-number" }) {
		t.Errorf("16 slots are none for Codis: %+v, %v", out, err)
	}
	if got := codisSlot("abc{}def", 1024); got != 0 {
		t.Errorf("an empty tag is a tag: %d", got)
	}
	if got := codisSlot("{tag1408}str0", 1024); got != 1 {
		t.Errorf("{tag1408} is of slot 1: %d", got)
	}
}

func TestTargetValid(t *testing.T) {
	known := func(string) bool { return false }
	if p := validConfig(Config{Addr: "127.0.0.1:9221", Release: "3.4.0"}, known); len(p) != 0 {
		t.Errorf("%v", p)
	}
	for _, c := range []Config{{Addr: "nowhere"}, {Addr: "h:0"}, {Addr: "h:1", Release: "three"}, {Addr: "h:1", Timeout: -1}} {
		if p := validConfig(c, known); len(p) != 1 {
			t.Errorf("%+v: %v", c, p)
		}
	}
}
