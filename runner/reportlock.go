package runner

// ReportLock is the lock of a run.
type ReportLock struct {
	Name     string `json:"name"`
	Target   string `json:"target,omitempty"`   // that keeps it; absent: it is a file in the state directory
	Hold     string `json:"hold,omitempty"`     // run: it is kept until the run is over
	Fence    int64  `json:"fence,omitempty"`    // of the last process
	Released bool   `json:"released,omitempty"` // a person has taken the claim away since
}

func lockOf(b *RunStarted) *ReportLock {
	if b.Lock == "" {
		return nil
	}
	return &ReportLock{Name: b.Lock, Target: b.LockTarget, Hold: b.LockHold, Fence: b.Fence}
}

// Claims says that other runs are kept out although no process works on this one.
func (r *Report) Claims() bool {
	return r.Lock != nil && r.Lock.Hold == "run" && !r.Lock.Released && r.Sandbox == "" && !r.Over()
}

// Words names the lock: codis/demo on zk.
func (l *ReportLock) Words() string {
	if l.Target == "" {
		return l.Name
	}
	return l.Name + " on " + l.Target
}

func (l *LockReleased) words() string {
	return "the claim on lock " + (&ReportLock{Name: l.Lock, Target: l.Target}).Words() + " was " + RunPaused{Reason: l.Reason, Person: l.Person}.words("released")
}
