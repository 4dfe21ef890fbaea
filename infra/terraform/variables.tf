variable "region" {
  description = "Where the bucket is; the cluster should be there too."
  type        = string
}

variable "bucket" {
  description = "The bucket's name, of which there is one in the world."
  type        = string
}

variable "oidc_provider_arn" {
  description = "The cluster's OIDC provider in IAM, which vouches for its service accounts."
  type        = string

  validation {
    condition     = can(regex(":oidc-provider/", var.oidc_provider_arn))
    error_message = "An ARN like arn:aws:iam::111122223333:oidc-provider/oidc.eks.REGION.amazonaws.com/id/ID."
  }
}

variable "namespace" {
  description = "The namespace of infra/kubernetes."
  type        = string
  default     = "llmsrec"
}

variable "pipeline_service_account" {
  description = "The account that Dagster's chart makes, <release>; code server and runs work as it."
  type        = string
  default     = "dagster"
}

variable "inbox_prefix" {
  description = "Where new interactions arrive (operations.yaml, inbox: s3://bucket/prefix)."
  type        = string
  default     = "inbox"
}

variable "keep_old_versions_days" {
  description = "How long a deleted or overwritten object can be had back."
  type        = number
  default     = 90
}
