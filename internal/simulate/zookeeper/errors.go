package zookeeper

import "strconv"

// Error is an error of the protocol: what a client gets instead of an answer.
type Error int32

// The errors of ZooKeeper that this package answers.
const (
	ErrConnectionLoss          Error = -4
	ErrMarshalling             Error = -5
	ErrUnimplemented           Error = -6
	ErrBadArguments            Error = -8
	ErrNoNode                  Error = -101
	ErrNoAuth                  Error = -102
	ErrBadVersion              Error = -103
	ErrNoChildrenForEphemerals Error = -108
	ErrNodeExists              Error = -110
	ErrNotEmpty                Error = -111
	ErrSessionExpired          Error = -112
	ErrInvalidACL              Error = -114
	ErrAuthFailed              Error = -115
)

func (e Error) Error() string {
	switch e {
	case ErrConnectionLoss:
		return "zookeeper: connection loss"
	case ErrMarshalling:
		return "zookeeper: marshalling error"
	case ErrUnimplemented:
		return "zookeeper: unimplemented"
	case ErrBadArguments:
		return "zookeeper: bad arguments"
	case ErrNoNode:
		return "zookeeper: node does not exist"
	case ErrNoAuth:
		return "zookeeper: not authorized"
	case ErrBadVersion:
		return "zookeeper: version conflict"
	case ErrNoChildrenForEphemerals:
		return "zookeeper: an ephemeral node has no children"
	case ErrNodeExists:
		return "zookeeper: node exists"
	case ErrNotEmpty:
		return "zookeeper: node has children"
	case ErrSessionExpired:
		return "zookeeper: session expired"
	case ErrInvalidACL:
		return "zookeeper: invalid access list"
	case ErrAuthFailed:
		return "zookeeper: authentication failed"
	}
	return "zookeeper: error " + strconv.Itoa(int(e))
}
