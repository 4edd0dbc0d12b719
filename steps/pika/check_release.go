package pika

import (
	"context"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

type checkReleaseIn struct {
	Peer schema.TargetName `yaml:"peer" doc:"Pika target that is to replicate with this one, whichever follows."`
}

type checkReleaseOut struct {
	Release      string    `yaml:"release" doc:"Release of the server."`
	Mode         string    `yaml:"mode" doc:"sharding or classic."`
	CanReplicate *bool     `yaml:"can_replicate" doc:"The two replicate with each other, as far as releases, modes, slot numbers, passwords and server ids tell; null without peer."`
	CanSync      bool      `yaml:"can_codis_sync" doc:"Codis can migrate slots from this server with migration_method sync, key by key, and nothing that blocks it is known."`
	CanSemiAsync bool      `yaml:"can_codis_semi_async" doc:"This server answers what Codis sends with migration_method semi-async. In mode sharding of 3.2 to 3.4 that moves no key: the move is a replication."`
	Reasons      []Problem `yaml:"reasons" doc:"What stands against each of these, and what must be known of the release; empty where nothing is."`
}

func checkRelease() *steps.Kind[checkReleaseIn, checkReleaseOut] {
	return &steps.Kind[checkReleaseIn, checkReleaseOut]{
		Name: "pika.check-release",
		Doc: "Tells what a server's release can do: replicate with a peer, and have its slots migrated by Codis, and names each problem with cause and fix. " +
			"Sends INFO (keyspace too, which starts no count), CONFIG GET and, in mode sharding, SLOTSHASHKEY to see that keys hash as Codis hashes them.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: releases, uses: pika.check-release, target: pika5, with: {peer: pika1}, expect: can_replicate && can_codis_semi_async}`,
		Pitfalls: []string{
			"Codis sends the migration to the source: check the server that has the slots now.",
			"A server says OK to slaveof of a release it cannot replicate with, and may even say connected and online.",
			"That a release has a command does not mean that it does what the name says: 3.2 to 3.4 answer semi-async migration with success and move nothing.",
			"The tables are of releases 2.2 to 4.0; one outside them can neither replicate nor be migrated as far as is known here.",
		},
		Read: readCheckRelease,
	}
}

// nature is what a server's behaviour depends on.
type nature struct {
	addr      string
	release   Release
	mode      string
	slots     int  // default-slot-num; 0 in mode classic
	unindexed bool // slotmigrate is off, in a release that has it
	databases int  // of mode classic, from 3.0 on
	double    *DoubleMaster
	serverID  int64
}

func (c *Client) nature(ctx context.Context) (nature, error) {
	n := nature{addr: c.Addr()}
	i, err := c.Info(ctx)
	if err != nil {
		return n, err
	}
	n.release, n.serverID = i.Release, i.ServerID
	if !n.release.Known() {
		return n, steps.Errorf("reply", "info on %s: it tells no pika_version", c.Addr()).WithHint("is it a Pika?")
	}
	if n.mode, err = c.Mode(ctx); err != nil {
		return n, err
	}
	if n.mode == Sharding {
		n.slots, err = c.slotNumber(ctx)
		return n, err
	}
	if n.release.atLeast(3, 0, 0) {
		k, err := c.keyspace(ctx)
		n.databases = k.Databases
		return n, err
	}
	value, _, err := c.setting(ctx, "slotmigrate")
	if err != nil {
		return n, err
	}
	n.unindexed = value == "no"
	d, err := c.Info(ctx, "doublemaster")
	n.double = d.DoubleMaster
	return n, err
}

func readCheckRelease(ctx context.Context, v steps.View, in checkReleaseIn) (checkReleaseOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return checkReleaseOut{}, err
	}
	me, err := c.nature(ctx)
	if err != nil {
		return checkReleaseOut{}, err
	}
	out := checkReleaseOut{Release: me.release.String(), Mode: me.mode, Reasons: append([]Problem{}, me.known()...)}
	if me.mode == Sharding {
		p, err := c.hashesAsCodis(ctx, me.slots)
		if err != nil {
			return checkReleaseOut{}, err
		}
		out.Reasons = append(out.Reasons, p...)
	}
	if in.Peer != "" {
		peer, err := view(ctx, v, in.Peer)
		if err != nil {
			return checkReleaseOut{}, err
		}
		them, err := peer.nature(ctx)
		if err != nil {
			return checkReleaseOut{}, err
		}
		out.Reasons = append(out.Reasons, between(me, them)...)
		fit, err := secretsFit(ctx, c, peer)
		if err != nil {
			return checkReleaseOut{}, err
		}
		if !fit {
			out.Reasons = append(out.Reasons, secretsDiffer)
		}
		can := !blocked(out.Reasons, "replication")
		out.CanReplicate = &can
	}
	out.CanSync = !blocked(out.Reasons, "codis-sync")
	out.CanSemiAsync = !blocked(out.Reasons, "codis-semi-async")
	return out, nil
}

func blocked(problems []Problem, about string) bool {
	for _, p := range problems {
		if p.Blocks && p.About == about {
			return true
		}
	}
	return false
}

var secretsDiffer = Problem{Name: "secrets-differ", About: "replication", Blocks: true,
	Message: "masterauth of neither server is the other's requirepass: rsync, which asks for it, then refuses every full sync, and the replica waits for ever",
	Fix:     "set masterauth of the replica to the master's requirepass, or leave both empty"}

// secretsFit tells whether a full sync is let in, in one direction at least.
func secretsFit(ctx context.Context, a, b *Client) (bool, error) {
	for _, pair := range [...][2]*Client{{a, b}, {b, a}} {
		err := checkSecrets(ctx, pair[0], pair[1])
		if err == nil {
			return true, nil
		}
		if !isKind(err, "precondition") {
			return false, err
		}
	}
	return false, nil
}

// between tells what keeps two servers from replicating.
func between(a, b nature) []Problem {
	var p []Problem
	if bar := replicates(a.release, b.release); bar != nil {
		p = append(p, *bar)
	} else if a.release.Compare(b.release) != 0 && a.mode == Sharding && a.release.Minor != b.release.Minor {
		p = append(p, Problem{Name: "releases-differ", About: "replication",
			Message: fmt.Sprintf("releases %s and %s connect; more than that they were not seen to do", a.release, b.release),
			Fix:     "compare the data of a slot before clients are sent to the replica"})
	}
	if a.mode != b.mode {
		p = append(p, Problem{Name: "modes-differ", About: "replication", Blocks: true,
			Message: fmt.Sprintf("%s runs in mode %s and %s in mode %s: a slot that follows a classic instance waits for ever (kWaitReply)", a.addr, a.mode, b.addr, b.mode),
			Fix:     "set instance-mode to the same, which takes a restart and empty data"})
	} else if a.slots != b.slots {
		p = append(p, Problem{Name: "slot-numbers-differ", About: "replication", Blocks: true,
			Message: fmt.Sprintf("%s has %d slots and %s has %d: the same key is in another slot there", a.addr, a.slots, b.addr, b.slots),
			Fix:     "set default-slot-num to that of the cluster, which takes an empty instance"})
	}
	return append(p, a.doubleMaster(b)...)
}

// doubleMaster tells what is wrong with the ids of two double masters: wrong ones replicate for ever what came from themselves.
func (n nature) doubleMaster(peer nature) []Problem {
	var wrong string
	switch d := n.double; {
	case d == nil || d.Peer != peer.addr:
		return nil
	case d.ServerID != peer.serverID:
		wrong = fmt.Sprintf("double-master-server-id of %s is %d, and the peer's server-id is %d", n.addr, d.ServerID, peer.serverID)
	case n.serverID == peer.serverID:
		wrong = fmt.Sprintf("both servers have the server-id %d", n.serverID)
	case peer.double != nil && peer.double.ServerID != n.serverID:
		wrong = fmt.Sprintf("double-master-server-id of %s is %d, and %s has the server-id %d", peer.addr, peer.double.ServerID, n.addr, n.serverID)
	default:
		return nil
	}
	return []Problem{{Name: "double-master-ids", About: "replication", Blocks: true,
		Message: wrong + ": every write goes round between the two for ever",
		Fix:     "set server-id and double-master-server-id crosswise, in both files, and restart"}}
}

// codisSlots is how many slots Codis has.
const codisSlots = 1024

// hashSamples are keys whose slot shows how a server reads hash tags.
var hashSamples = [...]string{"key:1", "{tag}a", "a{b}c", "abc{}def", "a{b", "a{b}c}", "ключ"}

// hashesAsCodis compares the server's slots of some keys with those that Codis computes: CRC32 (IEEE) of the tag, an empty one too, or of the whole key.
func (c *Client) hashesAsCodis(ctx context.Context, slots int) ([]Problem, error) {
	got, err := c.KeySlots(ctx, hashSamples[:]...)
	if err != nil {
		return nil, err
	}
	var p []Problem
	for i, key := range hashSamples {
		if i >= len(got) || got[i] != codisSlot(key, slots) {
			p = append(p, codisAll(Problem{Name: "hash-differs", Blocks: true,
				Message: fmt.Sprintf("the key %q is in another slot on the server than Codis sends it to", key),
				Fix:     "take a release and a Codis that hash alike; keys would be looked for where they are not"})...)
			break
		}
	}
	if slots != codisSlots {
		p = append(p, codisAll(Problem{Name: "slot-number", Blocks: true,
			Message: "default-slot-num is " + strconv.Itoa(slots) + ", and Codis has 1024 slots",
			Fix:     "set default-slot-num to 1024, which takes an empty instance"})...)
	}
	return p, nil
}

// codisAll is a problem of both ways in which Codis migrates.
func codisAll(p Problem) []Problem {
	sync, async := p, p
	sync.About, async.About = "codis-sync", "codis-semi-async"
	return []Problem{sync, async}
}

// codisSlot hashes as Codis does.
func codisSlot(key string, slots int) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok {
			key = tag
		}
	}
	return int(crc32.ChecksumIEEE([]byte(key)) % uint32(slots))
}
