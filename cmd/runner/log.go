package main

import (
	"context"
	"log/slog"
	"sync"

	"github.com/charmbracelet/log"
	"github.com/muesli/termenv"
)

// logger writes what helps to find a fault to standard error. Its handler is made when
// there is a first line to write: it is slow to make, and most runs write none.
func (a *app) logger() *slog.Logger {
	return slog.New(lazy{sync.OnceValue(func() slog.Handler {
		// Not the terminal itself: asked for its colours, a terminal answers on standard
		// input, where a person may be about to answer a gate.
		h := log.NewWithOptions(logWriter{a}, log.Options{Level: log.WarnLevel})
		h.SetColorProfile(termenv.Ascii)
		if a.color(a.err) {
			h.SetColorProfile(termenv.ANSI)
		}
		return h
	})})
}

// lazy is a handler that is made when it is first needed.
type lazy struct{ handler func() slog.Handler }

func (l lazy) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (l lazy) Handle(ctx context.Context, r slog.Record) error { return l.handler().Handle(ctx, r) }

func (l lazy) WithAttrs(attrs []slog.Attr) slog.Handler { return l.handler().WithAttrs(attrs) }

func (l lazy) WithGroup(name string) slog.Handler { return l.handler().WithGroup(name) }

// logWriter writes above the live lines at the bottom of the screen.
type logWriter struct{ app *app }

func (w logWriter) Write(b []byte) (int, error) {
	v := w.app.shown.Load()
	if v == nil {
		return w.app.err.Write(b)
	}
	v.screen.Lock()
	defer v.screen.Unlock()
	v.erase()
	n, err := w.app.err.Write(b)
	v.paint()
	return n, err
}
