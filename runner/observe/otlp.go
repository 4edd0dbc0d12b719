package observe

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/protobuf/encoding/protowire"
)

// otlp sends spans to a collector: OTLP/HTTP 1.x with protobuf, as its specification and the environment variables of its
// exporters say. OpenTelemetry's own exporter is not used because it links gRPC: 8 MB, and 2.5 ms at every start of the
// program, traced or not.
type otlp struct {
	url     string
	headers http.Header
	gzip    bool
	client  *http.Client
}

// errNotSpoken is a wish of the environment that cannot be fulfilled.
var errNotSpoken = errors.New("http/protobuf is what is spoken; its port is 4318 as a rule")

// newOTLP reads the environment. Each variable has a form for traces alone, which comes first.
func newOTLP(environ func(string) string) (*otlp, error) {
	value := func(name string) string {
		if v := environ("OTEL_EXPORTER_OTLP_TRACES_" + name); v != "" {
			return v
		}
		return environ("OTEL_EXPORTER_OTLP_" + name)
	}
	if p := value("PROTOCOL"); p != "" && p != "http/protobuf" {
		return nil, fmt.Errorf("the protocol asked for is %s: %w", p, errNotSpoken)
	}
	e := &otlp{url: environ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), headers: http.Header{}, gzip: value("COMPRESSION") == "gzip"}
	if e.url == "" {
		base := environ("OTEL_EXPORTER_OTLP_ENDPOINT")
		if base == "" {
			base = "http://localhost:4318"
		}
		e.url = strings.TrimSuffix(base, "/") + "/v1/traces"
	}
	if u, err := url.Parse(e.url); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the endpoint %q is no http or https address", e.url)
	}
	for pair := range strings.SplitSeq(value("HEADERS"), ",") {
		name, text, ok := strings.Cut(pair, "=")
		if text, err := url.PathUnescape(strings.TrimSpace(text)); ok && err == nil {
			e.headers.Add(strings.TrimSpace(name), text)
		}
	}
	timeout := 10 * time.Second
	if ms, err := strconv.Atoi(value("TIMEOUT")); err == nil && ms > 0 {
		timeout = time.Duration(ms) * time.Millisecond
	}
	trust, err := trust(value("CERTIFICATE"), value("CLIENT_CERTIFICATE"), value("CLIENT_KEY"))
	if err != nil {
		return nil, err
	}
	e.client = &http.Client{Timeout: timeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: trust}}
	return e, nil
}

// trust is whom to believe, and who we are, by the names of PEM files; nil: the system's, nobody.
func trust(ca, certificate, key string) (*tls.Config, error) {
	if ca == "" && certificate == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("read the collector's certificate: %w", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("there is no certificate in %s", ca)
		}
	}
	if certificate != "" {
		own, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("read the client's certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{own}
	}
	return c, nil
}

// ExportSpans sends spans, again and again where the collector says that it is busy, until the context ends.
func (e *otlp) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	body := encode(spans)
	if e.gzip {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write(body) // memory takes everything
		_ = w.Close()
		body = b.Bytes()
	}
	for delay := 500 * time.Millisecond; ; delay *= 2 {
		busy, err := e.post(ctx, body)
		if !busy {
			return err
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return err
		}
	}
}

// post sends one request. busy: it may be sent again.
func (e *otlp) post(ctx context.Context, body []byte) (busy bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header = e.headers.Clone()
	req.Header.Set("Content-Type", "application/x-protobuf")
	if e.gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // for the connection's next request
	switch resp.StatusCode / 100 {
	case 2:
		return false, nil
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		busy = true
	}
	return busy, fmt.Errorf("send spans to %s: %s", req.URL.Redacted(), resp.Status)
}

// Shutdown ends the connections.
func (e *otlp) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// message is a protobuf message being written. The numbers are those of opentelemetry/proto/trace/v1/trace.proto,
// common/v1/common.proto and collector/trace/v1/trace_service.proto.
type message []byte

func (m *message) bytes(field protowire.Number, b []byte) {
	if len(b) > 0 {
		*m = protowire.AppendBytes(protowire.AppendTag(*m, field, protowire.BytesType), b)
	}
}

func (m *message) text(field protowire.Number, s string) { m.bytes(field, []byte(s)) }

func (m *message) number(field protowire.Number, n uint64) {
	*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.VarintType), n)
}

func (m *message) fixed(field protowire.Number, n uint64) {
	*m = protowire.AppendFixed64(protowire.AppendTag(*m, field, protowire.Fixed64Type), n)
}

// encode makes an ExportTraceServiceRequest of spans of one provider.
func encode(spans []sdk.ReadOnlySpan) []byte {
	if len(spans) == 0 {
		return nil
	}
	var about, scope, scoped, all, request message
	about.attributes(1, spans[0].Resource().Attributes())
	scope.text(1, spans[0].InstrumentationScope().Name)
	scope.text(2, spans[0].InstrumentationScope().Version)
	scoped.bytes(1, scope)
	for _, s := range spans {
		scoped.bytes(2, encodeSpan(s))
	}
	all.bytes(1, about)
	all.bytes(2, scoped)
	all.text(3, spans[0].Resource().SchemaURL())
	request.bytes(1, all)
	return request
}

func encodeSpan(s sdk.ReadOnlySpan) (m message) {
	trace, id, parent := s.SpanContext().TraceID(), s.SpanContext().SpanID(), s.Parent()
	m.bytes(1, trace[:])
	m.bytes(2, id[:])
	m.text(3, s.SpanContext().TraceState().String())
	if up := parent.SpanID(); up.IsValid() {
		m.bytes(4, up[:])
	}
	m.text(5, s.Name())
	m.number(6, uint64(s.SpanKind()))
	m.fixed(7, uint64(s.StartTime().UnixNano()))
	m.fixed(8, uint64(s.EndTime().UnixNano()))
	m.attributes(9, s.Attributes())
	for _, e := range s.Events() {
		var event message
		event.fixed(1, uint64(e.Time.UnixNano()))
		event.text(2, e.Name)
		event.attributes(3, e.Attributes)
		m.bytes(11, event)
	}
	if s.Status().Code == codes.Error {
		var status message
		status.text(2, s.Status().Description)
		status.number(3, 2)
		m.bytes(15, status)
	}
	return m
}

func (m *message) attributes(field protowire.Number, list []attribute.KeyValue) {
	for _, a := range list {
		var value, pair message
		switch a.Value.Type() {
		case attribute.BOOL:
			value.number(2, protowire.EncodeBool(a.Value.AsBool()))
		case attribute.INT64:
			value.number(3, uint64(a.Value.AsInt64()))
		case attribute.FLOAT64:
			value.fixed(4, math.Float64bits(a.Value.AsFloat64()))
		default:
			value = protowire.AppendString(protowire.AppendTag(value, 1, protowire.BytesType), a.Value.String())
		}
		pair.text(1, string(a.Key))
		pair.bytes(2, value)
		m.bytes(field, pair)
	}
}
