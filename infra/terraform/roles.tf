# A role for each service account of the cluster (IRSA), with access to the prefixes that it needs.
locals {
  issuer = element(split(":oidc-provider/", var.oidc_provider_arn), 1)

  roles = {
    pipeline = {
      service_account = var.pipeline_service_account
      prefixes        = ["dvc", var.inbox_prefix, "vectors"]
    }
    mlflow = {
      service_account = "mlflow"
      prefixes        = ["mlflow"]
    }
  }
}

data "aws_iam_policy_document" "trust" {
  for_each = local.roles

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [var.oidc_provider_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:sub"
      values   = ["system:serviceaccount:${var.namespace}:${each.value.service_account}"]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "prefixes" {
  for_each = local.roles

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.store.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = flatten([for prefix in each.value.prefixes : [prefix, "${prefix}/*"]])
    }
  }

  # Deleting hides an object; its versions remain, since no role has s3:DeleteObjectVersion.
  statement {
    sid       = "Objects"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = [for prefix in each.value.prefixes : "${aws_s3_bucket.store.arn}/${prefix}/*"]
  }

  statement {
    sid       = "Key"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.bucket.arn]
  }
}

resource "aws_iam_role" "service" {
  for_each = local.roles

  name               = "llmsrec-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust[each.key].json
}

resource "aws_iam_role_policy" "service" {
  for_each = local.roles

  name   = "bucket"
  role   = aws_iam_role.service[each.key].id
  policy = data.aws_iam_policy_document.prefixes[each.key].json
}
