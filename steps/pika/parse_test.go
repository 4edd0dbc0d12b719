package pika

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"runbook/schema"
)

// What is understood of an answer, written as the server does, is understood alike.
func FuzzParseSlots(f *testing.F) {
	f.Add("(db0:1) binlog_offset=0 163593,safety_purge=none\r\n  Role: Master\r\n  connected_slaves: 1\r\n  slave[0]: 127.0.0.1:21106\r\n  replication_status: SlaveBinlogSync\r\n  lag: 0\r\n  -----------\r\n  Role: Slave\r\n  master: 127.0.0.1:21101\r\n  slave status: kConnected\r\n\r\n\r\n")
	f.Add("(db0:1) binlog_offset=0 0,safety_purge=none\r\n\r\n")
	f.Add("\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		slots, err := parseSlots(text)
		if err != nil {
			return
		}
		for _, s := range slots {
			if !s.Present || s.ID < 0 || s.Offset.File < 0 || s.Offset.Pos < 0 {
				t.Errorf("%q: %+v", text, s)
			}
		}
		again, err := parseSlots(written(slots))
		if err != nil {
			t.Fatalf("%q, written anew: %v", text, err)
		}
		if diff := cmp.Diff(written(slots), written(again)); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	})
}

func FuzzParseInfo(f *testing.F) {
	f.Add("# Server\r\npika_version:3.4.0\r\n# Replication(SLAVE)\r\nrole:slave\r\nmaster_host:h\r\nmaster_port:1\r\ndb_repl_state:(db0:kTryConnect)(db1:Error)\r\ndb0 binlog_offset=0 7,safety_purge=none\r\n")
	f.Add("# Replication(MASTER)\r\nrole:master\r\nslave0:ip=h,port=1,conn_fd=7,lag=(db0:not syncing)(db1:7)\r\nrepl_state: 4\r\n")
	f.Add("# Keyspace\r\n# Time:2026-11-22 04:25:59\r\n# Duration: In Waiting\r\ndb0 Strings_keys=3321, expires=1, invalid_keys=0\r\nkv keys:5\r\n")
	f.Add("# DoubleMaster(MASTER)\r\nthe peer-master host:h\r\nthe peer-master port:1\r\nrepl_state: 9\r\ndouble_master_recv_info: filenum 0 offset 7\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		i := ParseInfo(text)
		if i.DoubleMaster != nil && i.DoubleMaster.Peer == "" {
			t.Errorf("%q: a double master of nobody", text)
		}
		if i.StateCode != nil && i.State != StateName(i.Release, *i.StateCode) {
			t.Errorf("%q: state %d is called %s", text, *i.StateCode, i.State)
		}
	})
}

func TestMalformedSlotsAreRefused(t *testing.T) {
	for _, text := range []string{"  Role: Master", "(db0:1)", "(db0:x) binlog_offset=0 0", "(table:1) binlog_offset=0 0", "(db0:1) binlog_offset=0", "(db0:1) binlog_offset=a b,safety_purge=none", "(db0:1) binlog_offset=0 0\nnonsense", "(db0:1) binlog_offset=0 0\nslave[0]: h:1\nlag: much"} {
		if slots, err := parseSlots(text); err == nil {
			t.Errorf("%q is taken for %+v", text, slots)
		}
	}
}

// A lag of several databases is the largest, and unknown as soon as one is.
func TestLagsOfInfo(t *testing.T) {
	for text, want := range map[string]string{"0": "0", "(db0:0)": "0", "(db0:3)(db1:77)": "77", "(db0:not syncing)": "unknown", "(db0:3)(db1:not syncing)": "unknown", "": "unknown"} {
		if got := lagText(infoLag(text)); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func TestSlotGroup(t *testing.T) {
	for want, slots := range map[string]schema.Slots{"0-3,8,10-11": {11, 10, 0, 1, 2, 3, 3, 8}, "7": {7}, "": nil} {
		if got := SlotGroup(slots); got != want {
			t.Errorf("%v: %q", slots, got)
		}
	}
	if got := slotWord(1, schema.Slots{1, 2}); got != "db1:1-2" {
		t.Errorf("of table 1: %s", got)
	}
	if got := strings.Join(slotsSlaveOf(2, schema.Slots{1, 2}, "10.0.0.1:9221", true), " "); got != "PKCLUSTER SLOTSSLAVEOF 10.0.0.1 9221 1-2 force 2" {
		t.Errorf("the order: %s", got)
	}
}
