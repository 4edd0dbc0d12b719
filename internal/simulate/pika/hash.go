package pika

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// slotOf is where a key lies among n slots: by the checksum of what stands between the first { and the next }, or of the
// whole key.
func slotOf(key string, n int) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok {
			key = tag
		}
	}
	return int(crc32.ChecksumIEEE([]byte(key)) % uint32(n))
}

// threadOf is the apply thread of a key among n: std::hash of libstdc++, which is a MurmurHash64A with the seed 0xc70f6907.
func threadOf(key string, n int) int { return int(stdHash(key) % uint64(n)) }

func stdHash(s string) uint64 {
	const mul = 0xc6a4a7935bd1e995
	mix := func(v uint64) uint64 { return v ^ v>>47 }
	h := uint64(0xc70f6907) ^ uint64(len(s))*mul
	for ; len(s) >= 8; s = s[8:] {
		h = (h ^ mix(binary.LittleEndian.Uint64([]byte(s[:8]))*mul)*mul) * mul
	}
	if len(s) > 0 {
		var tail uint64
		for i := len(s) - 1; i >= 0; i-- {
			tail = tail<<8 + uint64(s[i])
		}
		h = (h ^ tail) * mul
	}
	return mix(mix(h) * mul)
}
