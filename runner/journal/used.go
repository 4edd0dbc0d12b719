package journal

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// planIDPattern is what NewPlanID makes. It leaves no room for a path.
var planIDPattern = regexp.MustCompile(`^[0-9a-z]{20}$`)

// NewPlanID makes the id of a saved plan: 20 random digits, so that no two plans anywhere share one.
func NewPlanID() string {
	var random [20]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the program instead
	for i, r := range random {
		random[i] = idDigits[r&31]
	}
	return string(random[:])
}

// UsedError says that a saved plan has had its one use.
type UsedError struct {
	Plan string
	By   Holder // the run that used it, who started that, and when
}

func (e *UsedError) Error() string { return fmt.Sprintf("saved plan %s was used by %v", e.Plan, e.By) }

// UsePlan marks a saved plan as used, for good: of all who try, in whatever process, one gets nil and the others a
// *UsedError. When it returns nil the mark is durable.
//
// The mark is a link to a file that is whole before it has its name, because a crash must leave no mark without the run
// in it, and two must not both find none.
func (s *Store) UsePlan(id string, by Holder) error {
	if !planIDPattern.MatchString(id) {
		return fmt.Errorf("use saved plan %q: not the id of one", id)
	}
	if err := s.usePlan(id, by); err != nil {
		if used := new(UsedError); errors.As(err, &used) {
			return used
		}
		return fmt.Errorf("mark saved plan %s as used in the state directory %s: %w", id, s.dir(), err)
	}
	return nil
}

func (s *Store) usePlan(id string, by Holder) error {
	if err := mkdirDurable(s.plans()); err != nil {
		return err
	}
	mark, err := json.Marshal(by)
	if err != nil {
		return err
	}
	whole := filepath.Join(s.plans(), id+"."+NewPlanID()) // of this try alone
	defer func() { _ = os.Remove(whole) }()               // the mark is a name of its own
	if err := WriteDurable(whole, append(mark, '\n')); err != nil {
		return err
	}
	err = os.Link(whole, s.planPath(id))
	if errors.Is(err, fs.ErrExist) {
		if err := s.PlanUnused(id); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	return syncDir(s.plans())
}

// PlanUnused tells by a *UsedError that a saved plan has had its one use in this state directory.
func (s *Store) PlanUnused(id string) error {
	if !planIDPattern.MatchString(id) {
		return fmt.Errorf("saved plan %q: not the id of one", id)
	}
	mark, err := os.ReadFile(s.planPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("saved plan %s: read its mark: %w", id, err)
	}
	used := &UsedError{Plan: id}
	_ = json.Unmarshal(mark, &used.By) // whatever it says, the plan was used
	return used
}

func (s *Store) planPath(id string) string { return filepath.Join(s.plans(), id) }
