"""The operator's part: every account, its credit, keys, people and audit log, and the plans."""

from bursar.sdk.faces import AsyncResource, Resource
from bursar.sdk.resources.operator.accounts import Accounts, AsyncAccounts
from bursar.sdk.resources.operator.audit import AsyncAudit, Audit
from bursar.sdk.resources.operator.members import AsyncMembers, Members
from bursar.sdk.resources.operator.people import AsyncPeople, People
from bursar.sdk.resources.operator.plans import AsyncPlans, Plans


class Operator(Resource):
    """The operator's part; needs an operator key."""

    @property
    def accounts(self) -> Accounts:
        """Every account."""
        return Accounts(self.connection, self.options)

    @property
    def audit(self) -> Audit:
        """The audit log of any account, and of what belongs to none."""
        return Audit(self.connection, self.options)

    @property
    def members(self) -> Members:
        """The users of any account."""
        return Members(self.connection, self.options)

    @property
    def people(self) -> People:
        """Everybody who has a user."""
        return People(self.connection, self.options)

    @property
    def plans(self) -> Plans:
        """Plans."""
        return Plans(self.connection, self.options)


class AsyncOperator(AsyncResource):
    """The operator's part; needs an operator key."""

    @property
    def accounts(self) -> AsyncAccounts:
        """Every account."""
        return AsyncAccounts(self.connection, self.options)

    @property
    def audit(self) -> AsyncAudit:
        """The audit log of any account, and of what belongs to none."""
        return AsyncAudit(self.connection, self.options)

    @property
    def members(self) -> AsyncMembers:
        """The users of any account."""
        return AsyncMembers(self.connection, self.options)

    @property
    def people(self) -> AsyncPeople:
        """Everybody who has a user."""
        return AsyncPeople(self.connection, self.options)

    @property
    def plans(self) -> AsyncPlans:
        """Plans."""
        return AsyncPlans(self.connection, self.options)
