package pika_test

import (
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"runbook/internal/simulate/pika"
)

const slotMigration = "moving the slots of 2.3, and what is in them by then, is not simulated"

// unplayed are recordings of something else than a request, or of what is not simulated.
var unplayed = map[string]string{
	"2.3.6/118": slotMigration,
	"2.3.6/119": slotMigration,
	"2.3.6/120": slotMigration,
	"2.3.6/121": slotMigration,
	"2.3.6/122": slotMigration,
	"2.3.6/123": slotMigration,
	"2.3.6/124": slotMigration,
	"2.3.6/125": slotMigration,
	"2.3.6/126": slotMigration,
	"2.3.6/127": slotMigration,
	"2.3.6/128": slotMigration,
	"2.3.6/129": slotMigration,
	"2.3.6/130": slotMigration,
	"2.3.6/131": slotMigration,
	"2.3.6/132": slotMigration,
	"2.3.6/133": slotMigration,
	"2.3.6/134": slotMigration,
	"2.3.6/135": slotMigration,
	"2.3.6/136": slotMigration,
	"2.3.6/137": slotMigration,
	"2.3.6/138": slotMigration,
	"2.3.6/139": slotMigration,
	"2.3.6/140": slotMigration,
	"2.3.6/141": slotMigration,
	"2.3.6/142": slotMigration,
	"2.3.6/143": slotMigration,
	"2.3.6/144": slotMigration,
	"2.3.6/145": slotMigration,
	"2.3.6/146": slotMigration,
	"2.3.6/147": slotMigration,
	"2.3.6/148": slotMigration,
	"2.3.6/149": slotMigration,
	"2.3.6/150": slotMigration,
	"2.3.6/153": slotMigration,
	"2.3.6/154": slotMigration,
	"2.3.6/155": slotMigration,
	"3.4.0/305": "a process that does not start", "3.4.0/306": "a process that does not start", "3.4.0/307": "a process that does not start",
	"2.3.6/157": "a start of a process", "2.3.6/175": "a process that does not start", "2.3.6/176": "a process that does not start",
	"2.3.6/177": "a process that does not start", "2.3.6/162": "a log file", "2.3.6/163": "a log file", "2.3.6/169": "a log file",
	"2.3.6/170": "a log file", "2.3.6/186": "a log file", "2.3.6/187": "a log file", "2.3.6/203": "a log file", "2.3.6/204": "a log file",
	"3.4.0/313": "a log file", "3.4.0/380": "a test's own result", "3.4.0/387": "a test's own result", "3.4.0/410": "a start of a process",
}

// deviations are recordings that are answered otherwise here, with the reason.
var deviations = map[string]string{
	"3.4.0/298": "the counts of commands are those of the recorded run",
	"3.4.0/301": "info debug is not simulated",
}

// testConfig is the configuration that the recorded servers had.
var testConfig = map[string]string{
	"thread-num": "2", "thread-pool-size": "4", "sync-thread-num": "2", "maxmemory": "1048576", "write-buffer-size": "1048576",
	"arena-block-size": "65536", "timeout": "3600", "maxclients": "2000", "max-background-compactions": "1", "max-cache-files": "64",
	"network-interface": "lo", "max-conn-rbuf-size": "67108864",
}

func config(more ...string) map[string]string {
	m := map[string]string{}
	for k, v := range testConfig {
		m[k] = v
	}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

func slotOf(key string, n uint32) int { return int(crc32.ChecksumIEEE([]byte(key)) % n) }

var scenes = map[string][]scene{
	"3.4.0": {
		{"a group of six", group(), playGroup},
		{"full syncs and chains", map[string]pika.Options{
			"d-m": {SlotNum: 8, Config: config("db-sync-speed", "1", "thread-num", "1")},
			"d-n": {SlotNum: 8, FullSync: 13 * time.Second, Config: config()},
			"d-s": {SlotNum: 8, Config: config()},
			"d-x": {SlotNum: 8, Config: config()},
			"d-c": {Mode: "classic", Config: config("thread-num", "1")},
		}, playFullSync},
		{"slots that are being added", map[string]pika.Options{"d-q": {AddSlot: 130 * time.Millisecond}}, playAddSlots},
		{"passwords", map[string]pika.Options{
			"d-r1": {SlotNum: 8, Password: "pw1"}, "d-r2": {SlotNum: 8},
		}, playPasswords},
		{"purged binlogs", map[string]pika.Options{
			"d-r1": {SlotNum: 8, Config: config("binlog-file-size", "262144")}, "d-r2": {SlotNum: 8, Config: config("binlog-file-size", "262144")},
		}, playPurged},
		{"without a password of its own", map[string]pika.Options{"d-r1": {SlotNum: 8, Password: "pw1"}}, func(p *player) { p.to("403", "409") }},
		{"classic mode", map[string]pika.Options{
			"h-a": {Mode: "classic"}, "h-b": {Mode: "classic"},
		}, playClassic},
	},
	"2.3.6": {
		{"a replica", map[string]pika.Options{"g-a": {Config: config2()}, "g-b": {FullSync: 3 * time.Second, Config: config2()}}, playReplica},
		{"two masters", map[string]pika.Options{"g-c": {Config: config2()}}, playTwoMasters},
		{"slots", map[string]pika.Options{"g-e": {Config: config2()}, "g-f": {Config: config2()}}, playOldSlots},
		{"no rsync", map[string]pika.Options{"g-g": {Config: config2()}, "g-h": {NoRsync: true, Config: config2()}}, playNoRsync},
		{"2.3.0 and 2.3.6", map[string]pika.Options{"g-i": {Config: config2()}, "g-j": {Release: "2.3.0", FullSync: 3 * time.Second, Config: config2()}}, playMixed},
	},
	"cross": {
		{"3.4.0 and 2.3.6", map[string]pika.Options{"i-b": {Release: "3.4.0", Mode: "classic"}, "i-c": {Release: "2.3.6"}}, func(p *player) {
			p.to("001", "001")
			time.Sleep(14 * time.Second)
			p.to("002", "006")
		}},
	},
	"3.2.9": {
		{"3.2.9, and a 3.4.0 that follows it", map[string]pika.Options{"i-a": {SlotNum: 8}, "i-b": {Release: "3.4.0", SlotNum: 8}}, func(p *player) {
			p.to("001", "015")
			p.stop("i-a")
			p.restart("i-a")
			p.to("016", "024")
		}},
	},
}

func group() map[string]pika.Options {
	m := map[string]pika.Options{}
	for i := range 6 {
		m[fmt.Sprintf("pika%d", i+1)] = pika.Options{Config: config()}
	}
	return m
}

func playGroup(p *player) {
	p.to("001", "048")
	for i := range 6000 {
		key := fmt.Sprintf("key:%d", i)
		name := "pika1"
		if slotOf(key, 1024) >= 512 {
			name = "pika3"
		}
		p.do(name, "set", key, fmt.Sprintf("v%d", i))
	}
	for i := range 300 {
		p.do("pika1", "set", fmt.Sprintf("{tag1408}str%d", i), strings.Repeat("x", 100))
	}
	p.do("pika1", "setex", "{tag1408}ttl", "3600", "1")
	for i := range 150 {
		p.do("pika1", "hset", fmt.Sprintf("{tag1408}h%d", i), "f", "v")
		p.do("pika1", "rpush", fmt.Sprintf("{tag1408}l%d", i), "v")
		p.do("pika1", "sadd", fmt.Sprintf("{tag1408}s%d", i), "v")
		p.do("pika1", "zadd", fmt.Sprintf("{tag1408}z%d", i), "1", "v")
	}
	p.to("049", "088")
	load := func() {
		for i := range 300 {
			p.do("pika1", "set", fmt.Sprintf("{tag1408}load%d", i), strings.Repeat("y", 300))
		}
	}
	load()
	p.to("089", "089")
	load()
	p.to("090", "122")
}

func playFullSync(p *player) {
	p.to("123", "125")
	load := func(key string, n, step int) {
		for i := range n {
			p.do("d-m", "set", fmt.Sprintf("{t0}%s%d", key, i*step), strings.Repeat("x", 200))
		}
	}
	load("f", 300, 1)
	p.to("126", "137")
	load("L", 300, 100)
	p.to("138", "145")
	p.do("d-n", "pkcluster", "slotsslaveof", "no", "one", "1")
	p.to("146", "146")
	time.Sleep(5 * time.Second)
	p.to("147", "147")
	time.Sleep(90 * time.Second)
	p.to("148", "149")
	time.Sleep(25 * time.Second)
	p.to("150", "150")
	time.Sleep(3 * time.Second)
	p.to("151", "157")
	time.Sleep(3 * time.Second)
	p.to("158", "162")
	time.Sleep(20 * time.Second)
	p.to("163", "163")
	time.Sleep(2 * time.Second)
	p.to("164", "168")
	p.do("d-m", "set", "{t0}one", strings.Repeat("x", 20))
	p.to("169", "177")
	time.Sleep(10 * time.Millisecond)
	p.to("178", "182")
	time.Sleep(2 * time.Second)
	p.to("183", "183")
	time.Sleep(65 * time.Second)
	p.to("184", "218")
	time.Sleep(25 * time.Second)
	p.to("219", "223")
	p.start("d-c", pika.Options{SlotNum: 8, Slots: "0-7"})
	p.to("224", "225")
	p.do("d-x", "set", "a", strings.Repeat("z", 5600))
	p.to("226", "231")
	for i := range 20 {
		p.do("d-m", "set", fmt.Sprintf("{t6}w%d", i), strings.Repeat("y", 200))
	}
	p.do("d-x", "set", "{t6}own", strings.Repeat("z", 31))
	p.to("232", "235")
	p.do("d-x", "set", "{t6}own", strings.Repeat("z", 198))
	p.to("236", "307")
	p.do("d-x", "set", "{t0}more", strings.Repeat("z", 5600))
	p.to("308", "309")
	p.servers["d-n"].SetNoRsync(true)
	p.to("310", "310")
	time.Sleep(45 * time.Second)
	p.to("311", "313")
	p.servers["d-n"].SetNoRsync(false)
	p.to("314", "317")
	p.wait("d-x", "kConnected", "pkcluster", "info", "slot", "1")
	p.stop("d-x")
	time.Sleep(25 * time.Second)
	p.to("318", "318")
	p.do("d-m", "set", "{t0}while-down", "1")
	p.restart("d-x")
	p.to("319", "323")
	p.do("d-n", "pkcluster", "slotsslaveof", "no", "one", "all")
	p.to("324", "326")
	p.wait("d-x", "kConnected", "pkcluster", "info", "slot", "1")
	p.stop("d-m")
	time.Sleep(3 * time.Second)
	p.restart("d-m")
	time.Sleep(40 * time.Second)
	p.do("d-m", "set", "{t0}amr1", "1")
	p.to("327", "329")
	p.stop("d-m")
	time.Sleep(30 * time.Second)
	p.to("330", "330")
	p.restart("d-m")
	time.Sleep(40 * time.Second)
	p.to("331", "332")
	p.do("d-m", "set", "{t0}amr2", "1")
	p.to("333", "340")
	time.Sleep(10 * time.Millisecond)
	p.to("341", "341")
	p.do("d-x", "pkcluster", "slotsslaveof", "no", "one", "all")
	p.to("359", "368")
	p.do("d-x", "set", "{t6}o0", strings.Repeat("z", 200))
	p.to("369", "387")
}

func playAddSlots(p *player) {
	first := p.conn("d-q")
	delete(p.conns, "d-q")
	_ = first.Send("pkcluster", "addslots", "0-63")
	time.Sleep(10 * time.Millisecond)
	p.to("342", "345")
	p.to("347", "347")
	p.to("346", "346")
	v, err := first.Receive()
	if err != nil || v.Str != "OK" {
		p.t.Errorf("addslots answered %v, %v", v, err)
	}
	p.outcome["348-addslots-0-63-long"] = v.Str == "OK"
	gone := p.conn("d-q")
	delete(p.conns, "d-q")
	_ = gone.Send("pkcluster", "addslots", "64-95")
	time.Sleep(200 * time.Millisecond)
	_ = gone.Close()
	p.to("349", "357")
	p.stop("d-q")
	p.restart("d-q")
	p.to("358", "358")
}

func playPasswords(p *player) {
	p.to("388", "389")
	p.to("390", "394")
}

func playPurged(p *player) {
	p.to("395", "396")
	for i := range 5000 {
		p.do("d-r1", "set", fmt.Sprintf("{t0}p%d", i), strings.Repeat("x", 800))
		if strings.HasPrefix(p.servers["d-r1"].Do("pkcluster", "info", "slot", "1").Str, "(db0:1) binlog_offset=16 12") {
			break
		}
	}
	p.to("397", "402")
}

func playClassic(p *player) {
	for i := range 120 {
		p.do("h-a", "set", fmt.Sprintf("k%d", i), strings.Repeat("x", 60000))
	}
	p.to("411", "438")
	p.do("h-b", "set", "own", "1")
	p.to("439", "444")
}

// config2 is the configuration that the recorded servers of 2.3 had.
func config2(more ...string) map[string]string {
	m := map[string]string{
		"sync-thread-num": "2", "maxmemory": "1048576", "write-buffer-size": "1048576", "timeout": "3600", "maxclients": "2000",
		"max-cache-files": "64", "network-interface": "lo",
	}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

func playReplica(p *player) {
	p.to("001", "002")
	for i := range 5000 {
		p.do("g-a", "set", fmt.Sprintf("s%d", i), strings.Repeat("v", 100))
	}
	for typ, n := range map[string]int{"hset h%d f v": 100, "rpush l%d v": 50, "zadd z%d 1 v": 30, "sadd t%d v": 40} {
		for i := range n {
			p.do("g-a", strings.Fields(fmt.Sprintf(typ, i))...)
		}
	}
	p.to("003", "038")
	for i := range 500 {
		p.do("g-a", "set", fmt.Sprintf("load%d", i), strings.Repeat("v", 100))
	}
	p.to("039", "039")
}

// twoMasters are the configurations of a pair.
func twoMasters(c, d string) (map[string]string, map[string]string) {
	pair := func(id, peer, peerID string) map[string]string {
		return config2("server-id", id, "double-master-ip", "127.0.0.1", "double-master-port", fmt.Sprint(ports[peer]), "double-master-server-id", peerID)
	}
	return pair("1", d, "2"), pair("2", c, "1")
}

func playTwoMasters(p *player) {
	for i := range 3000 {
		p.do("g-c", "set", fmt.Sprintf("old%d", i), strings.Repeat("v", 100))
	}
	p.to("040", "040")
	c, d := twoMasters("g-c", "g-d")
	relaunch := func(name string, config map[string]string) {
		delete(p.conns, name)
		if err := p.servers[name].Relaunch(config); err != nil {
			p.t.Fatal(err)
		}
	}
	relaunch("g-c", c)
	p.to("041", "042")
	time.Sleep(4 * time.Second)
	p.to("043", "044")
	p.start("g-d", pika.Options{FullSync: 3 * time.Second, Config: d})
	p.to("045", "051")
	p.wait("g-d", "repl_state: 3", "info", "replication")
	p.do("g-d", "set", "early", "1")
	p.to("052", "052")
	p.do("g-c", "set", "fromc", "1")
	p.do("g-d", "set", "fromd", "1")
	p.to("053", "063")
	p.stop("g-d")
	p.to("064", "064")
	for i := range 1000 {
		p.do("g-c", "set", fmt.Sprintf("down%d", i), strings.Repeat("v", 100))
	}
	time.Sleep(4 * time.Second)
	p.restart("g-d")
	p.do("g-d", "set", "alone", "1")
	p.to("065", "071")
	p.wait("g-d", "repl_state: 3", "info", "replication")
	p.do("g-d", "set", "early", "2")
	p.to("072", "072")
	p.stop("g-d")
	p.servers["g-d"].Wipe(true, true)
	p.wait("g-c", "repl_state: 1", "info", "replication")
	time.Sleep(4 * time.Second)
	p.restart("g-d")
	p.to("073", "094")
	p.do("g-c", "set", "fromc2", "1")
	p.do("g-d", "set", "fromd2", "1")
	p.to("095", "096")
	p.stop("g-c")
	p.stop("g-d")
	p.servers["g-c"].Wipe(false, true)
	p.servers["g-d"].Wipe(true, true)
	p.restart("g-c")
	time.Sleep(150 * time.Millisecond)
	p.restart("g-d")
	p.to("097", "111")
}

func playOldSlots(p *player) {
	p.to("112", "117")
	p.to("151", "152")
	p.to("156", "156")
}

func playNoRsync(p *player) {
	p.do("g-g", "set", "k", "v")
	p.to("158", "164")
	p.to("165", "174")
}

func playMixed(p *player) {
	for i := range 500 {
		p.do("g-i", "set", fmt.Sprintf("k%d", i), strings.Repeat("v", 150))
	}
	p.to("178", "184")
	p.do("g-i", "set", "later", "1")
	p.to("185", "195")
	p.start("g-i", pika.Options{Release: "2.3.0", Config: config2()})
	p.start("g-j", pika.Options{Config: config2()})
	p.do("g-i", "set", "later", "1")
	p.to("196", "204")
	i, j := twoMasters("g-i", "g-j")
	p.start("g-i", pika.Options{Release: "2.3.0", Config: i})
	time.Sleep(150 * time.Millisecond)
	p.start("g-j", pika.Options{Config: j})
	p.to("205", "212")
	p.do("g-i", "set", "fi", "1")
	p.do("g-j", "set", "fj", "1")
	time.Sleep(3 * time.Second)
	p.to("213", "214")
	i["double-master-server-id"] = "7"
	p.start("g-i", pika.Options{Config: i})
	time.Sleep(150 * time.Millisecond)
	p.start("g-j", pika.Options{Config: j})
	p.to("215", "222")
	p.do("g-i", "set", "fi", "1")
	p.do("g-j", "set", "fj", "1")
	p.to("223", "229")
}
