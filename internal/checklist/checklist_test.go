package checklist

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// bin is where the runner is built.
var bin string

func TestMain(m *testing.M) {
	var err error
	if bin, err = os.MkdirTemp("", "checklist-"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(bin)
		os.Exit(code)
	}))
}

// row is one check of the checklist: a world, what breaks it, and what is found then.
type row struct {
	id     string
	fires  string // the name of the problem, or words of the refusal
	world  func(t *testing.T) *world
	breaks func(w *world)
	finds  func(w *world) []string // names of the problems, or a refusal in its words; none: the check passes
	repair func(w *world)
}

func rows() []row { return slices.Concat(pikaRows(), codisRows(), twemproxyRows()) }

// TestChecklist: every check fires in the world that it is about, by its name, and passes when the world is repaired.
func TestChecklist(t *testing.T) {
	all := rows()
	for _, id := range ids() {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			for _, r := range all {
				if r.id == id {
					t.Run(r.fires, r.try)
				}
			}
		})
	}
}

func (r row) try(t *testing.T) {
	w := r.world(t)
	if r.breaks != nil {
		r.breaks(w)
	}
	w.until(r.fires+" fires", func() (bool, []string) {
		found := r.finds(w)
		return r.in(found), found
	})
	r.repair(w)
	w.until(r.fires+" passes", func() (bool, []string) {
		found := r.finds(w)
		return !r.in(found) && (r.named() || len(found) == 0), found
	})
}

// named tells a problem by its name; another one may be there beside it. A refusal in words is all that is found.
func (r row) named() bool { return !strings.Contains(r.fires, " ") }

func (r row) in(found []string) bool {
	return slices.ContainsFunc(found, func(f string) bool {
		return f == r.fires || !r.named() && strings.Contains(f, r.fires)
	})
}

// ids are those of the rows, in order, each once.
func ids() []string {
	var all []string
	for _, r := range rows() {
		all = append(all, r.id)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

var line = regexp.MustCompile(`(?m)^\| ((?:S0|S1|X)-\d\d) \|(.*)\|$`)

// TestTable: the documentation's table lists every check that is tried here, by the names that it fires with, and says of each other
// one why it is not.
func TestTable(t *testing.T) {
	text, err := os.ReadFile("../../docs/checklist.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, m := range line.FindAllStringSubmatch(string(text), -1) {
		if _, twice := listed[m[1]]; twice {
			t.Errorf("%s stands there twice", m[1])
		}
		listed[m[1]] = m[2]
	}
	tried := ids()
	for id, cells := range listed {
		test, reason := strings.Contains(cells, "`Checklist/"+id+"`"), strings.Contains(cells, "**not covered**: ")
		if test != slices.Contains(tried, id) || test == reason {
			t.Errorf("%s: it is tried here: %t; the table names its test: %t, a reason why there is none: %t", id, slices.Contains(tried, id), test, reason)
		}
	}
	for _, r := range rows() {
		if cells, ok := listed[r.id]; !ok {
			t.Errorf("%s is not in the table", r.id)
		} else if r.named() && !strings.Contains(cells, "`"+r.fires+"`") {
			t.Errorf("%s fires %s, which the table does not name", r.id, r.fires)
		}
	}
	for _, want := range []struct {
		set  string
		last int
	}{{"S1", 29}, {"X", 20}} {
		for i := range want.last {
			if id := want.set + "-" + pad(i+1); listed[id] == "" {
				t.Errorf("%s is missing", id)
			}
		}
	}
}

func pad(n int) string {
	return string([]byte{'0' + byte(n/10), '0' + byte(n%10)})
}

// patience is how long anything may take before the test says that it never happens.
const patience = 30 * time.Second
