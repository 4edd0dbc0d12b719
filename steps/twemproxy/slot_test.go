package twemproxy

import (
	"fmt"
	"testing"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/redis"
)

// TestSlots: the proxy sends a key where slot_of says it belongs, which is where Codis and Pika look for it. The one
// exception is a key whose tag is empty: Codis and Pika take the empty text, nutcracker the whole key.
func TestSlots(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			s := b.site(t)
			var owners []string
			for i := range 13 {
				owners = append(owners, s.server(fmt.Sprint(i)))
			}
			s.write(owners...)
			s.start()
			c := redis.Open(redis.Config{Addr: schema.Addr(s.addr)}, steps.ReadWrite, redis.Dialect{})
			defer func() { _ = c.Close() }()
			for _, k := range []struct {
				key     string
				differs bool
			}{
				{"key:1", false}, {"{tag}0", false}, {"a{b}c}", false}, {"a{b", false}, {"}a{b}", false}, {"{a}{b}", false}, {"{{a}}", false},
				{"schlüssel", false}, {"键{标签}尾", false}, {"{}", true}, {"{}x{y}", true}, {"abc{}de", true},
			} {
				if _, err := c.Do(t.Context(), "SET", k.key, "1"); err != nil {
					t.Fatal(err)
				}
				at := -1
				for i, addr := range owners {
					o := redis.Open(redis.Config{Addr: schema.Addr(addr)}, steps.ReadOnly, redis.Dialect{})
					if r, err := o.Do(t.Context(), "EXISTS", k.key); err == nil && r.Value() == int64(1) {
						at = i
					}
					_ = o.Close()
				}
				p, failed := expression.Compile(fmt.Sprintf("slot_of(%q, %d)", k.key, len(owners)), nil, nil, expression.Plain)
				if failed != nil {
					t.Fatal(failed)
				}
				slot, err := p.Eval(nil)
				if err != nil {
					t.Fatal(err)
				}
				if (at == slot) == k.differs || at < 0 {
					t.Errorf("%q went to %d, and its slot is %v", k.key, at, slot)
				}
			}
		})
	}
}
