package steps

import (
	"context"
	"time"
)

// Watch is what a kind asks a guardian to look after while its act leaves the world in a
// state that must not last, such as slots whose clients wait.
type Watch struct {
	// Plan is all that the kind's Guard needs to know beside its targets; it goes over as JSON.
	Plan any
	// Targets are the names of those that Guard may have to speak to; the step's own goes with them.
	Targets []string
	// Limit is how long the act may take. A runner that has neither ended it nor died by then hangs:
	// the guardian ends the runner's process, so that two never act at once, and then acts.
	Limit time.Duration
}

// Guardian is a second process of the runner's own binary, at the other end of a pipe. It
// does nothing while the runner lives and the limit is not over. When the pipe closes
// before Dismiss, the runner is dead or has given up: then it calls the kind's Guard.
type Guardian interface {
	// Tell announces how far the act has come, before the request goes out that makes it true:
	// Guard gets the words in order. An announcement that fails means that nobody guards any more.
	Tell(word string) error
	// Dismiss ends the guardian: the act has come to a safe end by itself.
	Dismiss()
	// Yield leaves the rest to the guardian, and returns when it has done it or ctx is over: then it
	// goes on, also after this process has ended, and a resume waits for it. The caller must not act any more.
	Yield(ctx context.Context) error
}

// Watch starts a guardian and returns when it has confirmed that it is ready. The caller
// ends every watch by Dismiss or Yield.
func (s Session) Watch(ctx context.Context, w Watch) (Guardian, error) { return s.env.Watch(ctx, w) }
