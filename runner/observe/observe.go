// Package observe tells other programs of a run while it goes on: a command that is run when people should hear of
// something (Hook), numbers to be scraped (Metrics), and spans (Trace). All of it is read from the records that the run
// journals anyway, by a goroutine of its own: whoever listens badly, or not at all, never holds the run up or harms it.
package observe

import (
	"log/slog"
	"sync"

	"runbook/runner"
	"runbook/runner/journal"
)

// Reader is told of a run. All its methods are called by one goroutine.
type Reader interface {
	// Read gets every record in order, and the run as it is with that record. past: an earlier process wrote it.
	Read(run *runner.Report, rec journal.Record, past bool)
	// Close ends the reader, in bounded time, after the last record.
	Close()
}

// Feed hands the records of a run on to its readers.
type Feed struct {
	readers []Reader
	report  *runner.Report
	log     *slog.Logger

	mu      sync.Mutex
	earlier []journal.Record
	queue   []journal.Record
	wake    chan struct{}
	end     chan struct{}
	once    sync.Once
	done    sync.WaitGroup
}

// Start puts the readers beside those that cfg has already. Without a reader nothing is put there.
func Start(cfg *runner.Config, readers ...Reader) *Feed {
	f := &Feed{readers: readers, report: runner.NewReport(), log: cfg.Log, wake: make(chan struct{}, 1), end: make(chan struct{})}
	if len(readers) == 0 {
		return f
	}
	observe, recall := cfg.Observe, cfg.Recall
	cfg.Observe = func(r journal.Record) {
		if observe != nil {
			observe(r)
		}
		f.take(func() { f.queue = append(f.queue, r) })
	}
	cfg.Recall = func(all []journal.Record) {
		if recall != nil {
			recall(all)
		}
		f.take(func() { f.earlier = all })
	}
	f.done.Go(f.loop)
	return f
}

// Close hands on what is left and ends the readers. It may be called twice.
func (f *Feed) Close() {
	f.once.Do(func() { close(f.end) })
	f.done.Wait()
}

// take is called inside the journal's lock: it must be quick.
func (f *Feed) take(put func()) {
	f.mu.Lock()
	put()
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *Feed) loop() {
	for {
		select {
		case <-f.wake:
			f.hand()
		case <-f.end:
			f.hand()
			for _, r := range f.readers {
				r.Close()
			}
			return
		}
	}
}

func (f *Feed) hand() {
	f.mu.Lock()
	earlier, queue := f.earlier, f.queue
	f.earlier, f.queue = nil, nil
	f.mu.Unlock()
	for _, list := range [][]journal.Record{earlier, queue} {
		for _, rec := range list {
			if err := f.report.Add(rec); err != nil {
				f.log.Warn("a record is not told on", "error", err)
				continue
			}
			for _, r := range f.readers {
				r.Read(f.report, rec, len(earlier) > 0 && &list[0] == &earlier[0])
			}
		}
	}
}
