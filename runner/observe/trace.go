package observe

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"runbook/runner"
	"runbook/runner/journal"
)

// Trace sends a span for each process of a run and for each of its steps to a collector. All processes of a run are one
// trace: its id is made of the run-id, unless TRACEPARENT names another.
type Trace struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	ids      *runIDs
	base     context.Context // with the span that it all belongs to, where TRACEPARENT names one
	run      trace.Span
	steps    map[string]trace.Span // under way, groups too
	last     time.Time
}

// flushLimit is how long the end of a process waits for its collector.
const flushLimit = 2 * time.Second

// StartTrace makes a Trace where the standard environment variables ask for one (OTEL_EXPORTER_OTLP_ENDPOINT,
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or OTEL_TRACES_EXPORTER=otlp), and gives nil where they do not. Everything else
// that they say about an OTLP exporter, the sampler, the batches and the resource holds as well. What they ask for and is
// not spoken (grpc) is an error.
func StartTrace(environ func(string) string, version string, log *slog.Logger) (*Trace, error) {
	exporter := environ("OTEL_TRACES_EXPORTER")
	asked := exporter == "otlp" || environ("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || environ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	if !asked || exporter == "none" || strings.EqualFold(environ("OTEL_SDK_DISABLED"), "true") {
		return nil, nil
	}
	if exporter != "" && exporter != "otlp" {
		return nil, fmt.Errorf("traces: OTEL_TRACES_EXPORTER is %s, and otlp is what there is", exporter)
	}
	sender, err := newOTLP(environ)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	ctx := context.Background()
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", "runner"), attribute.String("service.version", version)), resource.WithFromEnv())
	if err != nil {
		log.Warn("OTEL_RESOURCE_ATTRIBUTES are not taken as they are", "error", err)
	}
	var told atomic.Bool
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { // the one that is there writes to standard error, each time
		if told.CompareAndSwap(false, true) {
			log.Warn("traces are not taken by their collector", "error", err)
		}
	}))
	ids := &runIDs{}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(sender), sdk.WithResource(about), sdk.WithIDGenerator(ids))
	t := &Trace{provider: provider, tracer: provider.Tracer("runner", trace.WithInstrumentationVersion(version)), ids: ids, base: ctx, steps: map[string]trace.Span{}}
	if parent := environ("TRACEPARENT"); parent != "" {
		t.base = propagation.TraceContext{}.Extract(t.base, propagation.MapCarrier{"traceparent": parent, "tracestate": environ("TRACESTATE")})
	}
	return t, nil
}

// runIDs gives every trace the id of its run.
type runIDs struct{ of trace.TraceID }

func (g *runIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	return g.of, g.NewSpanID(ctx, g.of)
}

func (g *runIDs) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	_, _ = rand.Read(id[:]) // it never fails
	return id
}

// Read begins and ends spans.
func (t *Trace) Read(run *runner.Report, rec journal.Record, past bool) {
	if past {
		return
	}
	t.last = rec.Time
	switch rec.Type {
	case "run-started", "run-resumed":
		sum := sha256.Sum256([]byte(run.Run))
		copy(t.ids.of[:], sum[:])
		_, t.run = t.tracer.Start(t.base, "run "+run.Name, trace.WithTimestamp(rec.Time), trace.WithAttributes(
			attribute.String("runner.run", run.Run), attribute.String("runner.runbook", run.Name), attribute.String("runner.plan", run.Plan),
			attribute.String("runner.operator", run.Operator), attribute.Int("runner.process", run.Processes), attribute.Bool("runner.sandbox", run.Sandbox != "")))
	case "step-started":
		t.start(run.Find(rec.Step), rec)
	case "step-retrying":
		var b runner.StepRetrying
		if s := t.steps[rec.Step]; s != nil && rec.Decode(&b) == nil && b.Error != nil {
			s.AddEvent("retry", trace.WithTimestamp(rec.Time), trace.WithAttributes(
				attribute.Int("attempt", b.Attempt), attribute.String("error", b.Error.Message), attribute.String("delay", b.Delay)))
		}
	case "step-finished":
		t.finish(run.Find(rec.Step), rec.Time)
	case "run-finished":
		t.end(run, rec.Time)
	case "step-observed", "undo-started", "undo-finished": // too many, and not of a span
	default:
		if t.run != nil {
			t.run.AddEvent(rec.Type, trace.WithTimestamp(rec.Time), trace.WithAttributes(attribute.String("runner.step", rec.Step)))
		}
	}
}

// start begins a step's span, once however often it is tried, within that of the innermost group that has one.
func (t *Trace) start(s *runner.ReportStep, rec journal.Record) {
	if s == nil || t.run == nil || t.steps[s.Path] != nil {
		return
	}
	parent := t.run
	for path := s.Path; parent == t.run; {
		at := strings.LastIndexByte(path, '/')
		if at < 0 {
			break
		}
		path = path[:at]
		if outer := t.steps[path]; outer != nil {
			parent = outer
		}
	}
	attributes := []attribute.KeyValue{attribute.String("runner.step", s.Path)}
	for _, a := range []struct{ key, value string }{{"runner.kind", s.Kind}, {"runner.effect", s.Effect}, {"runner.target", s.Target}, {"server.address", s.Addr}} {
		if a.value != "" {
			attributes = append(attributes, attribute.String(a.key, a.value))
		}
	}
	_, t.steps[s.Path] = t.tracer.Start(trace.ContextWithSpan(t.base, parent), s.Path, trace.WithTimestamp(rec.Time), trace.WithAttributes(attributes...))
}

func (t *Trace) finish(s *runner.ReportStep, at time.Time) {
	if s == nil || t.steps[s.Path] == nil {
		return
	}
	span := t.steps[s.Path]
	delete(t.steps, s.Path)
	span.SetAttributes(attribute.String("runner.status", s.Status), attribute.Int("runner.attempts", s.Attempts))
	if s.Error != nil {
		span.SetStatus(codes.Error, s.Error.Message)
	}
	span.End(trace.WithTimestamp(at))
}

// end ends the span of the process, and those of the steps that it left open.
func (t *Trace) end(run *runner.Report, at time.Time) {
	for path, s := range t.steps {
		s.SetAttributes(attribute.String("runner.status", "unfinished"))
		s.End(trace.WithTimestamp(at))
		delete(t.steps, path)
	}
	if t.run == nil {
		return
	}
	t.run.SetAttributes(attribute.String("runner.status", string(run.Status)))
	if run.Error != nil {
		t.run.SetStatus(codes.Error, run.Error.Message)
	}
	t.run.End(trace.WithTimestamp(at))
	t.run = nil
}

// Close sends what is left, as far as the collector takes it in time.
func (t *Trace) Close() {
	if t.run != nil { // the journal could not take the last record
		t.end(runner.NewReport(), t.last)
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // its errors are for the handler
}
