package journal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A claim keeps other runs out when nobody holds the lock, until its own run gives it back.
func TestClaim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	mine, other := Holder{Run: "r1", Host: "db7", Claim: true}, Holder{Run: "r2"}
	refused := func(claimed bool, step string) {
		t.Helper()
		_, err := Lock(path, other)
		var locked *LockedError
		if !errors.As(err, &locked) || locked.Claimed != claimed || locked.Holder.Run != "r1" || locked.Holder.Step != step {
			t.Fatalf("%v, want it refused, claimed %v, at %q", err, claimed, step)
		}
	}
	held, err := Lock(path, mine)
	check(t, err)
	check(t, held.At("a/long/path/of/a/step"))
	refused(false, "a/long/path/of/a/step")
	check(t, held.At("b")) // shorter than what was there
	check(t, held.Keep())
	refused(true, "b")
	if h, live, err := Inspect(path); live || err != nil || h.Run != "r1" || !h.Claim {
		t.Fatalf("inspect: %+v, %v, %v", h, live, err)
	}
	held, err = Lock(path, mine)
	check(t, err)
	refused(false, "")
	check(t, held.Release())
	check(t, held.At("c")) // it is not ours any more
	held, err = Lock(path, other)
	check(t, err)
	check(t, held.Keep())
	held, err = Lock(path, mine) // what a holder without a claim leaves is no obstacle
	check(t, err)
	check(t, held.Release())
}

// A writer that dies between two calls leaves the claim: the first line counts.
func TestClaimBehindACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := Lock(path, Holder{Run: "r1", Claim: true, Step: strings.Repeat("x", 100)})
	check(t, err)
	check(t, held.Keep())
	was, err := os.ReadFile(path)
	check(t, err)
	short := `{"run":"r1","claim":true}` + "\n"
	check(t, os.WriteFile(path, append([]byte(short), was[len(short):]...), 0o600))
	if _, err := Lock(path, Holder{Run: "r2"}); err == nil {
		t.Error("the claim is gone")
	}
}
