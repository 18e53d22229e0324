package rls

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// The errors of constraints. They say which one, in a [*ConstraintError], and
// nothing of the rows that it was about, so that another tenant's row looks like none.
var (
	// ErrConflict: a unique key or an exclusion that a row of the same tenant has taken.
	ErrConflict = errors.New("conflict")
	// ErrReference: a row that is referenced is not there, or one that is to go is referenced.
	ErrReference = errors.New("reference")
	// ErrForeign: a row that would belong to another tenant, or to none.
	ErrForeign = errors.New("not the tenant's row")
)

// ConstraintError is a violation as the caller may learn of it. errors.Is
// tells its kind; it does not unwrap to the driver's error, which shows values.
type ConstraintError struct {
	// Kind is ErrConflict, ErrReference or ErrForeign.
	Kind error
	// Constraint is its name, or empty.
	Constraint string
}

// Error implements error.
func (e *ConstraintError) Error() string {
	if e.Constraint == "" {
		return "rls: " + e.Kind.Error()
	}
	return fmt.Sprintf("rls: %v: %s", e.Kind, e.Constraint)
}

// Is reports whether target is the kind of e.
func (e *ConstraintError) Is(target error) bool { return target == e.Kind }

// MapError returns a [*ConstraintError] for an error of PostgreSQL about a
// unique key, a foreign key, an exclusion or a policy (SQLSTATE 23505, 23503,
// 23P01, 42501), and others as they are. [Pool.InTx] applies it to what fn returns.
func MapError(err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch pg.Code {
	case "23505", "23P01":
		return &ConstraintError{ErrConflict, pg.ConstraintName}
	case "23503":
		return &ConstraintError{ErrReference, pg.ConstraintName}
	case "42501":
		return &ConstraintError{Kind: ErrForeign}
	default:
		return err
	}
}
