package runner

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"runbook/runner/journal"
)

// records makes the records of a journal, a second apart.
func records(t *testing.T, list ...any) []journal.Record {
	t.Helper()
	var all []journal.Record
	for i := 0; i < len(list); i += 3 {
		body, err := json.Marshal(list[i+2])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, journal.Record{
			Seq: int64(len(all) + 1), Time: time.Date(2026, 11, 22, 11, 0, len(all), 0, time.UTC),
			Type: list[i].(string), Step: list[i+1].(string), Body: body,
		})
	}
	return all
}

func TestReport(t *testing.T) {
	t.Parallel()
	all := records(t,
		recRunStarted, "", RunStarted{Format: 1, Run: "r1", Name: "move", Plan: strings.Repeat("a", 64), Operator: "ana"},
		recStepStarted, "move", StepStarted{Attempt: 1},
		recStepStarted, "move[slot=1]/look", StepStarted{Attempt: 1, Kind: "redis.info", Effect: "read", Waiting: "lag == 0"},
		recStepObserved, "move[slot=1]/look", StepObserved{Values: map[string]any{"lag": 7}, Left: "5s"},
		recStepFinished, "move[slot=1]/look", StepFinished{Status: statusOK, Duration: "2s"},
		recStepStarted, "move[slot=1]/act", StepStarted{Attempt: 1, Kind: "exec", Effect: "write", Commands: []string{"do it"}},
		recGateOpened, "drop", GateOpened{Message: "Drop?"},
		"from-the-future", "", map[string]int{"x": 1},
	)
	for _, test := range []struct {
		live      bool
		act, want string
	}{
		{true, StepRunning, "run r1 is running: 1 ok, 1 running"},
		{false, StepInDoubt, "run r1 stopped without an end, as after a crash: 1 ok, 1 in-doubt"},
	} {
		r, err := ReadReport(all, test.live)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Find("move[slot=1]/act").Status; got != test.act {
			t.Errorf("live %v: the act is %s", test.live, got)
		}
		if got := r.Summary(test.live)[0].Text; got != test.want {
			t.Errorf("live %v: got %q", test.live, got)
		}
		if way := r.WayOn(test.live); (way == "runner resume r1") == test.live {
			t.Errorf("live %v: the way on is %q", test.live, way)
		}
		if len(r.Gates) != 1 || r.Gates[0].Decided {
			t.Errorf("got gates %+v", r.Gates)
		}
	}
	resumed := append(all, records(t,
		recRunResumed, "", RunStarted{Format: 1, Run: "r1", Operator: "bob"},
		recStepFinished, "move[slot=1]/act", StepFinished{Status: statusChanged, Recovered: true},
		recGateDecided, "drop", GateDecided{Approved: true, Person: &Person{By: "bob"}, How: "prompt"},
		recRunFinished, "", RunFinished{Status: Succeeded, Outputs: map[string]any{"n": 1}},
	)...)
	r, err := ReadReport(resumed, false)
	if err != nil {
		t.Fatal(err)
	}
	if r.Processes != 2 || r.Operator != "bob" || !r.Over() || !r.Gates[0].Approved || r.WayOn(false) != "" {
		t.Errorf("got %+v", r)
	}
	if got := r.Describe(resumed[len(resumed)-3])[0].Text; got != "move[slot=1]/act: changed (recovered: its effect was found done)" {
		t.Errorf("got %q", got)
	}
	if got := r.Find("move[slot=1]/look").Observed.Words(); got != "lag = 7, about 5s left" {
		t.Errorf("got %q", got)
	}
	if got := r.CountText(); got != "1 changed, 1 ok" {
		t.Errorf("got %q", got)
	}
}
