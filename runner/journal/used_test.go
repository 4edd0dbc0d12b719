package journal

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"
)

func TestUsePlan(t *testing.T) {
	t.Parallel()
	s := Store{Dir: t.TempDir()}
	id := NewPlanID()
	if err := s.PlanUnused(id); err != nil {
		t.Fatal(err)
	}
	const many = 16
	var wg sync.WaitGroup
	errs := make([]error, many)
	for i := range many {
		wg.Go(func() {
			errs[i] = s.UsePlan(id, Holder{Operator: "ana", Run: NewID(time.Now()), Since: time.Now()})
		})
	}
	wg.Wait()
	won := 0
	runs := map[string]bool{}
	for _, err := range append(errs, s.PlanUnused(id), s.UsePlan(id, Holder{})) {
		var used *UsedError
		switch {
		case err == nil:
			won++
		case !errors.As(err, &used):
			t.Error(err)
		default:
			runs[used.By.Run] = true
		}
	}
	if won != 1 || len(runs) != 1 || runs[""] {
		t.Errorf("%d have it, and the others are told of %v", won, runs)
	}
	left, err := os.ReadDir(s.plans())
	if err != nil || len(left) != 1 {
		t.Errorf("%v: %d files are left", err, len(left))
	}
	for _, bad := range []string{"", "../runs", "x", id + "/x"} {
		if s.UsePlan(bad, Holder{}) == nil || s.PlanUnused(bad) == nil {
			t.Errorf("%q passes for an id", bad)
		}
	}
}
