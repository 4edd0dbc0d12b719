package pika

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"

	"runbook/schema"
	"runbook/steps"
)

// TestVia: a client, and one beside it, reach nothing but through the dialer they were given: a sandbox relies on it.
func TestVia(t *testing.T) {
	var asked []string
	inside := func(_ context.Context, _, addr string) (net.Conn, error) {
		asked = append(asked, addr)
		return nil, errors.New("not in this world")
	}
	c := Open(Config{Addr: "10.0.0.1:9221"}, steps.ReadOnly).Via(inside)
	beside := c.Beside("10.9.9.9:9221")
	for _, c := range []*Client{c, beside} {
		if _, err := c.Slots(t.Context(), schema.Slots{1}); err == nil {
			t.Errorf("%s answers", c.Addr())
		}
	}
	if _, _, err := beside.knock(t.Context(), "10.9.9.9:10221", true); err != nil {
		t.Error(err)
	}
	for _, addr := range []string{"10.0.0.1:9221", "10.9.9.9:9221", "10.9.9.9:10221"} {
		if !slices.Contains(asked, addr) {
			t.Errorf("%s was not asked for through the dialer, but %v", addr, asked)
		}
	}
}
