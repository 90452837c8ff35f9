package vmsvc

import (
	"time"

	"google.golang.org/grpc/codes"
)

// final says whether trying again cannot help.
func final(code codes.Code) bool {
	switch code {
	case codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		// The same request would fail in the same way.
		return true
	case codes.NotFound, codes.FailedPrecondition:
		// A watch never ends with these; what sends them is not an endpoint server.
		return true
	default:
		return false
	}
}

// RetryPolicy is how long a watch waits before it opens its next stream.
//
// It waits a random part (full jitter) of Initial, which doubles with each failure in a row up to Max.
// A stream that was good for Healthy resets the count. If the server asks for a delay, that comes
// first, up to AskedMax. A field that is 0 has its default.
type RetryPolicy struct {
	// Initial is 250 ms by default.
	Initial time.Duration
	// Max is 10 s by default.
	Max time.Duration
	// Healthy is 10 s by default.
	Healthy time.Duration
	// AskedMax is 1 minute by default.
	AskedMax time.Duration
}

func (p RetryPolicy) withDefaults() RetryPolicy {
	or := func(given, otherwise time.Duration) time.Duration {
		if given > 0 {
			return given
		}
		return otherwise
	}
	return RetryPolicy{
		Initial:  or(p.Initial, 250*time.Millisecond),
		Max:      or(p.Max, 10*time.Second),
		Healthy:  or(p.Healthy, 10*time.Second),
		AskedMax: or(p.AskedMax, time.Minute),
	}
}

// retry counts the failures in a row of one watch. Time and chance are arguments.
type retry struct {
	policy    RetryPolicy
	ceiling   time.Duration
	goodSince time.Time
}

func newRetry(policy RetryPolicy) retry {
	return retry{policy: policy, ceiling: policy.Initial}
}

// synced is for a stream that has been good since now.
func (r *retry) synced(now time.Time) {
	if r.goodSince.IsZero() {
		r.goodSince = now
	}
}

// delay is how long to wait before the next stream, after err ended this one. chance is uniform in
// [0, 1).
func (r *retry) delay(err *Error, now time.Time, chance float64) time.Duration {
	if !r.goodSince.IsZero() && now.Sub(r.goodSince) >= r.policy.Healthy {
		r.ceiling = r.policy.Initial
	}
	r.goodSince = time.Time{}
	random := time.Duration(chance * float64(min(r.ceiling, r.policy.Max)))
	if r.ceiling < r.policy.Max/2 {
		r.ceiling *= 2
	} else { // Twice the largest Duration would be negative.
		r.ceiling = r.policy.Max
	}
	return max(0, min(err.RetryAfter, r.policy.AskedMax)) + random
}
