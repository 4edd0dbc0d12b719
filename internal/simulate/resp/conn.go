package resp

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"
)

// Conn is a client's connection. It is for one goroutine at a time.
type Conn struct {
	net.Conn
	r *bufio.Reader
}

// NewConn wraps a connection that is open already.
func NewConn(c net.Conn) *Conn { return &Conn{Conn: c, r: bufio.NewReaderSize(c, 16<<10)} }

// Dialer opens connections; a net.Dialer's DialContext is one.
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// Dial connects over TCP.
func Dial(ctx context.Context, addr string) (*Conn, error) { return DialWith(ctx, nil, addr) }

// DialWith connects through the dialer given, plain TCP where it is nil.
func DialWith(ctx context.Context, d Dialer, addr string) (*Conn, error) {
	if d == nil {
		d = (&net.Dialer{}).DialContext
	}
	c, err := d(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return NewConn(c), nil
}

// Do sends a command and reads its answer. An error reply comes back as a ReplyError with the value; any other error
// means that the connection must be closed, and leaves open whether the command was carried out. The context's end
// interrupts the wait.
func (c *Conn) Do(ctx context.Context, args ...string) (Value, error) {
	if err := ctx.Err(); err != nil {
		return Value{}, context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	v, err := c.do(args)
	if !stop() { // the deadline stands: nobody may use this connection again
		if err != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		_ = c.Close()
	}
	if err != nil {
		return Value{}, err
	}
	return v, v.Error()
}

func (c *Conn) do(args []string) (Value, error) {
	if err := c.Send(args...); err != nil {
		return Value{}, err
	}
	return c.Receive()
}

// Send writes a command and does not wait for the answer.
func (c *Conn) Send(args ...string) error {
	_, err := c.Write(Command(args...))
	return err
}

// Receive reads the next answer.
func (c *Conn) Receive() (Value, error) { return Read(c.r) }
